// Package fsck holds the log, the buckets, receipts, the audit trail, the Redis view
// and what guards report against each other, and names each difference.
//
// It trusts no service: it reads the streams itself, decodes and folds the log by
// code of its own, and asks no service for anything but where the guards say that
// they are. What it shares with the services are the words (revoke.State and how two
// of them merge), the forms of records, of what stands in Redis and of pages of the
// audit trail, whose chain is verified by the code of quash audit verify.
//
// Services may run meanwhile. Whatever can only be ahead of something else is read
// before it: guards, audit trail, buckets, receipts, then the log's head and the log up to
// there, then Redis, then what the log has got since. So each of them may say less
// than the log has at the end, and must say what it had at the head.
//
// Messages leave the log by their own TTL, an hour at least. What that explains is no
// difference: an older gap, or what Redis still says of an entry that has ended. It
// keeps some hundred bytes a message in memory, and is made to be run now and then.
package fsck
