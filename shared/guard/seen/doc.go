// Package seen remembers, in bounded memory, which targets the tokens had that a guard
// accepted in the last day. What it says is wrong on one side only: it may say of a
// target that was never there that it was, seldom, and never that one was not.
package seen
