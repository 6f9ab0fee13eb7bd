package fsck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Config says what is looked at. Log is required; what is nil is not looked at, and
// the report says so.
type Config struct {
	Log     *nats.Conn // of the user revocation: the log and the audit trail
	Control *nats.Conn // of the user control-reader: the buckets
	Redis   redis.UniversalClient
	Fleet   func(context.Context) ([]Guard, error)
	Now     func() time.Time // default time.Now
	// Wait is how long the Redis view may take to reach the log's head. Default 15 s.
	Wait time.Duration
}

// Guard is what one reports of itself.
type Guard struct {
	Name, Instance string
	Position       revoke.Stamp // zero: it has not been heard
}

// The areas of differences.
const (
	Log     = "log"
	Audit   = "audit"
	Buckets = "buckets"
	// Receipts are those of revocations.
	Receipts = "receipts"
	Redis    = "redis"
	Fleet    = "fleet"
)

// Difference is one thing that is not as it must be.
type Difference struct {
	Area   string `json:"area"`
	Name   string `json:"name"` // what it is, one of a fixed set
	At     string `json:"at"`   // what it is about: a sequence, a key, a record
	Detail string `json:"detail"`
}

// Report is what was found.
type Report struct {
	OK          bool         `json:"ok"`
	Head        string       `json:"head"` // EPOCH.SEQUENCE up to which everything was compared
	Messages    int          `json:"messages"`
	Targets     int          `json:"targets"` // of which the log says something that counts
	Items       uint64       `json:"audit_items"`
	Unaudited   int          `json:"not_yet_audited"` // messages and records that the audit trail has not reached
	Records     int          `json:"records"`
	Receipts    int          `json:"receipts"`
	RedisKeys   int          `json:"redis_keys"`
	Guards      int          `json:"guards"`
	Differences []Difference `json:"differences"`
	// Left counts the differences of an area and name that are not listed, since so
	// many of them are.
	Left map[string]int `json:"left_out,omitempty"`
	// NotLookedAt is what could not be asked, or was not to be.
	NotLookedAt []string `json:"not_looked_at"`
}

// maxListed is how many differences of one name are listed: an emptied Redis lacks
// millions of keys.
const maxListed = 100

type checker struct {
	cfg     Config
	js      jetstream.JetStream
	control jetstream.JetStream
	report  Report
	listed  map[string]int

	log     *history
	trail   *trail
	guards  []Guard
	stamps  []stampOf // of records, judged once the head is known
	buckets []*bucket

	receipts  map[string]receipts.Receipt // by id
	receiptOf map[string]string           // id of the receipt by that of the entry's message
}

// Check looks at everything. An error says that it could not: it says nothing about
// what there is.
func Check(ctx context.Context, cfg Config) (Report, error) {
	if cfg.Log == nil {
		return Report{}, errors.New("fsck: no connection to the log")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wait == 0 {
		cfg.Wait = 15 * time.Second
	}
	c := &checker{cfg: cfg, listed: map[string]int{}}
	c.report.Differences, c.report.NotLookedAt = []Difference{}, []string{}
	var err error
	if c.js, err = jetstream.New(cfg.Log); err != nil {
		return Report{}, err
	}
	for _, step := range []func(context.Context) error{c.readFleet, c.readTrail, c.readBuckets, c.readReceipts, c.readLog, c.checkRedis} {
		if err := step(ctx); err != nil {
			return Report{}, err
		}
	}
	c.judgeLog()
	c.judgeTrail()
	c.judgeRecords()
	c.judgeReceipts()
	c.judgeFleet()
	c.report.OK = len(c.report.Differences) == 0
	slices.SortStableFunc(c.report.Differences, func(a, b Difference) int { return slices.Index(areas, a.Area) - slices.Index(areas, b.Area) })
	return c.report, nil
}

var areas = []string{Log, Audit, Buckets, Receipts, Redis, Fleet}

func (c *checker) differ(area, name, at, format string, args ...any) {
	kind := area + " " + name
	if c.listed[kind]++; c.listed[kind] > maxListed {
		if c.report.Left == nil {
			c.report.Left = map[string]int{}
		}
		c.report.Left[kind]++
		return
	}
	c.report.Differences = append(c.report.Differences, Difference{Area: area, Name: name, At: at, Detail: fmt.Sprintf(format, args...)})
}

func (c *checker) notLookedAt(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(c.report.NotLookedAt, text) {
		c.report.NotLookedAt = append(c.report.NotLookedAt, text)
	}
}

// readLog takes the log's head as the broker tells it, which no service has a hand
// in, and reads up to there.
func (c *checker) readLog(ctx context.Context) error {
	info, err := streamInfo(ctx, c.js, wire.Stream)
	if err != nil {
		return fmt.Errorf("the log: %w", err)
	}
	c.log = newHistory(c, info.Created)
	if err := c.log.readTo(ctx, info.State.LastSeq); err != nil {
		return err
	}
	c.report.Head = c.log.headStamp().String()
	return nil
}

// readOn reads what the log has got since.
func (c *checker) readOn(ctx context.Context) error {
	info, err := streamInfo(ctx, c.js, wire.Stream)
	if err != nil {
		return fmt.Errorf("the log: %w", err)
	}
	if info.State.LastSeq < c.log.head {
		c.differ(Log, "went-back", fmt.Sprint(info.State.LastSeq), "it ended at %d a moment ago, and ends at %d now", c.log.head, info.State.LastSeq)
		return nil
	}
	return c.log.readTo(ctx, info.State.LastSeq)
}

func (c *checker) judgeLog() {
	c.log.finish()
	c.report.Messages = len(c.log.messages)
	c.report.Targets = len(c.log.fold(c.log.head, c.cfg.Now().Unix()))
}

func (c *checker) readFleet(ctx context.Context) error {
	if c.cfg.Fleet == nil {
		c.notLookedAt("guards: no service was named to ask for them")
		return nil
	}
	var err error
	if c.guards, err = c.cfg.Fleet(ctx); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("the fleet: %w", err)
		}
		// After an incident the services may be down: the stores can still be compared.
		c.differ(Fleet, "unreachable", "the service", "%s (start it, or name none to leave the guards out)", err)
		return nil
	}
	c.report.Guards = len(c.guards)
	return nil
}

// judgeFleet wants no guard to be where the log has never been.
func (c *checker) judgeFleet() {
	for _, g := range c.guards {
		switch at := g.Position; {
		case at.IsZero():
		case c.log.neverWas(at):
			c.differ(Fleet, "unknown-epoch", g.Name+"/"+g.Instance, "it says that it is at %s, and the log has no epoch %d", at, at.Epoch)
		case c.log.headStamp().Less(at):
			c.differ(Fleet, "above-head", g.Name+"/"+g.Instance, "it says that it is at %s, and the log ends at %s", at, c.log.headStamp())
		}
	}
}

// digestOf is a message's digest as the audit trail has it.
type digestOf = audit.Digest
