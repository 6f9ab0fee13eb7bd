package wire

import "github.com/quash-project/quash/shared/guard/revoke"

// PositionJSON is a Position as it travels in requests and answers.
type PositionJSON struct {
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	ID       string `json:"id"`
}

// SyncRequest asks for what came after a position. With Recent the reader shows
// the ids that it has at its last positions, newest first: proof, if the
// service's log has others there.
type SyncRequest struct {
	Instance string         `json:"instance"`
	Position PositionJSON   `json:"position"` // zero: whole
	Recent   []PositionJSON `json:"recent,omitempty"`
}

// SyncAnswer is either a tail or the announcement of a whole state.
type SyncAnswer struct {
	Error *Refusal `json:"error,omitempty"`
	// Tail is set when the service's log holds the message at the asked position.
	Tail []Stored `json:"tail,omitempty"`
	// More says that the tail goes on after its last message: sync again from there.
	More bool `json:"more,omitempty"`
	// Whole is set otherwise: fetch its pages from that replica, merge them, then
	// sync from its Position.
	Whole *Whole `json:"whole,omitempty"`
	// Head is the position of the newest message of the service when it answered.
	Head PositionJSON `json:"head"`
	// Stamp is the position of the newest entry or epoch known to the service.
	Stamp revoke.Stamp `json:"stamp"`
}

// Whole announces a whole state.
type Whole struct {
	Replica  string       `json:"replica"`
	Snapshot string       `json:"snapshot"`
	Pages    int          `json:"pages"`
	Position PositionJSON `json:"position"` // the state holds everything up to here
}

// Stored is a message with its place.
type Stored struct {
	Sequence uint64  `json:"sequence"`
	Time     int64   `json:"time"` // the broker's time of storing it, Unix milliseconds
	Message  Message `json:"message"`
}

// PageRequest asks for page N, counted from 0, of a snapshot.
type PageRequest struct {
	Snapshot string `json:"snapshot"`
	Page     int    `json:"page"`
}

// ProbeRequest asks for a tick that is committed after the request has come. It
// also tells where the reader is, which counts as a Report.
type ProbeRequest struct {
	Instance string         `json:"instance"`
	Position PositionJSON   `json:"position"`
	Urgent   bool           `json:"urgent,omitempty"` // a request waits for it, or half the limit is over
	Recent   []PositionJSON `json:"recent,omitempty"` // proof, when the reader has any
}

// ProbeAnswer names the tick.
type ProbeAnswer struct {
	Error *Refusal     `json:"error,omitempty"`
	Tick  PositionJSON `json:"tick"`
	// SpreadMS is over how many milliseconds the reader should spread its reports,
	// so that those of the whole fleet stay within what a service takes; 0: at once.
	SpreadMS int64 `json:"spread_ms,omitempty"`
}

// JoinRequest asks the service to append a join. Each try is its own message.
type JoinRequest struct {
	Instance string `json:"instance"`
	LimitMS  int64  `json:"limit_ms"`
	Past     string `json:"past"`
}

// OutRequest says that the instance accepts nothing any more.
type OutRequest struct {
	Instance string `json:"instance"`
}

// JoinAnswer names the message that was appended.
type JoinAnswer struct {
	Error    *Refusal     `json:"error,omitempty"`
	Position PositionJSON `json:"position"`
}

// Report tells how far a reader has applied the log.
type Report struct {
	Instance string       `json:"instance"`
	Position PositionJSON `json:"position"`
}

// Heard is what a replica of the service was told by a reader with this NATS user.
type Heard struct {
	Name     string       `json:"name"`
	Instance string       `json:"instance"`
	Position PositionJSON `json:"position"`
}

// HeardBatch passes on to the other replicas what one has heard.
type HeardBatch struct {
	Heard []Heard `json:"heard"`
}

// Refusal is why a service did not do what a reader asked.
type Refusal struct {
	Code   string `json:"code"` // "invalid", "not_ready", "busy", "unknown_snapshot", "log_went_back", "cap"
	Detail string `json:"detail"`
}

func (r *Refusal) Error() string { return r.Code + ": " + r.Detail }
