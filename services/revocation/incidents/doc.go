// Package incidents keeps notebooks: what responders saw, wrote and cut under one incident,
// so that one document tells it afterwards.
//
// A notebook has what people write in it, and the plans that they were shown. Cuts are not in
// it: each names its incident in the log, so that nothing can be lost between a commit and a
// notebook, and a report finds them by their receipts. So a cut never waits for the store of
// the notebooks, and never fails with it.
//
// A notebook only grows, by compare-and-set on its record, until it is closed; it is kept for
// as long as receipts after its last change.
package incidents
