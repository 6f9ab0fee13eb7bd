// Package running keeps, beside each receipt, how many requests go on at each guard that
// were admitted with what the entry has cut or holds since, as guards tell it. No
// confirmation depends on any of it, and no receipt is complete by it or waits for it: it
// tells a responder what still runs.
package running
