package natstrail

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/audit"
)

func streamConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        audit.Stream,
		Description: "Quash: the audit trail, chained by hashes. Nothing is ever deleted by hand.",
		Subjects:    []string{audit.Subjects},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    replicas,
		MaxMsgs:     -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxConsumers: -1, MaxMsgSize: -1,
		Discard:    jetstream.DiscardNew,
		DenyDelete: true, DenyPurge: true,
		AllowDirect: false, // the leader alone knows the end of the chain
	}
}

// chain is the end of the chain, as it was last known. It is used by one
// goroutine.
type chain struct {
	js     jetstream.JetStream
	stream jetstream.Stream

	number uint64
	last   audit.Digest
	upto   map[string]audit.Place
}

// open makes the stream if it is not there, and reads the end of the chain.
func openChain(ctx context.Context, js jetstream.JetStream, replicas int) (*chain, error) {
	s, err := js.CreateOrUpdateStream(ctx, streamConfig(replicas))
	if err != nil {
		return nil, fmt.Errorf("create stream %s: %w", audit.Stream, err)
	}
	c := &chain{js: js, stream: s}
	return c, c.read(ctx)
}

// read reads the last page.
func (c *chain) read(ctx context.Context) error {
	m, err := c.stream.GetLastMsgForSubject(ctx, audit.Subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		c.number, c.last, c.upto = 0, audit.Digest{}, map[string]audit.Place{}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the end of the audit trail: %w", err)
	}
	var p audit.Page
	if err := json.Unmarshal(m.Data, &p); err != nil {
		return fmt.Errorf("page %d of the audit trail: %w", m.Sequence, err)
	}
	if p.Upto == nil {
		p.Upto = map[string]audit.Place{}
	}
	c.number, c.last, c.upto = m.Sequence, sha256.Sum256(m.Data), p.Upto
	return nil
}

// errOvertaken says that another replica has appended a page.
var errOvertaken = errors.New("another replica has written the next page")

// codeWrongLastSequence is the broker's, with the number or, while another
// write is in flight on a replicated stream, without.
var codesWrongLastSequence = map[jetstream.ErrorCode]bool{
	jetstream.JSErrCodeStreamWrongLastSequence: true, jetstream.JSErrCodeStreamWrongLastSequenceConstant: true,
}

// add appends a page with these items, after which the sources stand there. With
// any error the end of the chain has to be read again: the page may be there.
func (c *chain) add(ctx context.Context, items []audit.Item, upto map[string]audit.Place) error {
	p := audit.Page{Number: c.number + 1, Previous: c.last, Upto: maps.Clone(upto), Items: items}
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ack, err := c.js.Publish(ctx, audit.Subject, body, jetstream.WithExpectLastSequence(c.number), jetstream.WithExpectStream(audit.Stream))
	if err != nil {
		if api := (*jetstream.APIError)(nil); errors.As(err, &api) && codesWrongLastSequence[api.ErrorCode] {
			return errOvertaken
		}
		return fmt.Errorf("append to the audit trail: %w", err)
	}
	if ack.Sequence != p.Number {
		return fmt.Errorf("page %d of the audit trail was stored at %d", p.Number, ack.Sequence)
	}
	c.number, c.last, c.upto = p.Number, sha256.Sum256(body), p.Upto
	return nil
}
