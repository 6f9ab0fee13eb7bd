package incidents

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// Config is what Books need. All but Replicas and Log are required.
type Config struct {
	NATS     *nats.Conn // of the revocation service
	Receipts *receipts.Keeper
	Ledger   *ledger.Ledger
	Replicas int
	Now      func() time.Time
	Rand     io.Reader
	Log      *zap.Logger
	// From tells from where in the log on entries are of a tenant, and not of an earlier one
	// of its name. See revocation.Service.From.
	From func(ctx context.Context, tenant string) (revoke.Stamp, error)
}

// Books are all notebooks. They are safe for concurrent use.
type Books struct {
	cfg   Config
	store *store
}

// New returns Books that answer problem.Unavailable until Run has opened their bucket.
func New(cfg Config) (*Books, error) {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	s, err := newStore(cfg.NATS, cfg.Replicas, cfg.Log)
	if err != nil {
		return nil, err
	}
	return &Books{cfg: cfg, store: s}, nil
}

// Run opens the bucket.
func (b *Books) Run(ctx context.Context) error {
	b.store.run(ctx)
	return nil
}

// Writer is who writes in a notebook.
type Writer struct {
	Tenant, Actor string
	Request       string // the id of the request
	Try           Try    // nil: the request will not be repeated
}

// Try is one try of a request that may be made again.
type Try interface {
	// Seed is the same for every try.
	Seed() string
	// Earlier names what an earlier try was about to make, and Makes notes it.
	Earlier() string
	Makes(ctx context.Context, what string) error
}

func (b *Books) account(w Writer, reason string) Account {
	a := Account{Actor: w.Actor, Reason: reason, At: b.cfg.Now().UTC().Truncate(time.Millisecond), Request: w.Request}
	if w.Try != nil {
		a.Try = w.Try.Seed()
	}
	return a
}

// stamp is where the log is.
func (b *Books) stamp() revoke.Stamp {
	if b.cfg.Ledger == nil {
		return revoke.Stamp{}
	}
	return b.cfg.Ledger.Head().Stamp
}

const made = "incident:"

// Open opens a notebook.
func (b *Books) Open(ctx context.Context, w Writer, title, severity string) (Incident, error) {
	if err := checkText("title", title, maxTitle, false); err != nil {
		return Incident{}, err
	}
	severity, err := severityOf(severity)
	if err != nil {
		return Incident{}, err
	}
	x := Incident{Tenant: w.Tenant, Stamp: b.stamp(), Title: title, Severity: severity, Opened: b.account(w, title), Notes: []Note{}, Plans: []Plan{}}
	x.Meta = x.Opened
	if x.ID, err = newID(b.cfg.Rand, x.Opened.At); err != nil {
		return Incident{}, err
	}
	if w.Try != nil {
		if earlier := w.Try.Earlier(); len(earlier) > len(made) {
			x.ID = earlier[len(made):]
			if is, err := b.store.get(ctx, w.Tenant, x.ID); err == nil || problem.KindOf(err) != problem.NotFound {
				return is, err
			}
		} else if err := w.Try.Makes(ctx, made+x.ID); err != nil {
			return Incident{}, err
		}
	}
	return x, b.store.create(ctx, x)
}

var errMissing = problem.New(problem.NotFound, "there is no such incident, or it has ended")

// Find returns a notebook of the tenant.
func (b *Books) Find(ctx context.Context, tenant, id string) (Incident, error) {
	if commit.CheckIncident(id) != nil {
		return Incident{}, errMissing
	}
	from, err := b.cfg.From(ctx, tenant)
	if err != nil {
		return Incident{}, err
	}
	x, err := b.store.get(ctx, tenant, id)
	if err == nil && x.Stamp.Less(from) {
		return Incident{}, errMissing
	}
	return x, missing(err)
}

func missing(err error) error {
	if err != nil && problem.KindOf(err) == problem.NotFound {
		return errMissing
	}
	return err
}

// List returns the notebooks of a tenant that follow the one with this id, newest first. If
// there are more they follow last; otherwise that is empty.
func (b *Books) List(ctx context.Context, tenant, after string, limit int) (page []Incident, last string, err error) {
	ids, err := b.store.ids(ctx, tenant)
	if err != nil {
		return nil, "", err
	}
	if after != "" {
		i := slices.IndexFunc(ids, func(id string) bool { return id < after })
		if i < 0 {
			return nil, "", nil
		}
		ids = ids[i:]
	}
	if len(ids) > limit {
		ids, last = ids[:limit], ids[limit-1]
	}
	from, err := b.cfg.From(ctx, tenant)
	if err != nil {
		return nil, "", err
	}
	for _, id := range ids {
		x, err := b.store.get(ctx, tenant, id)
		switch {
		case err != nil && problem.KindOf(err) == problem.NotFound: // its time came meanwhile
		case err != nil:
			return nil, "", err
		case x.Stamp.Less(from):
			return page, "", nil // so were those that follow
		default:
			page = append(page, x)
		}
	}
	return page, last, nil
}

// Note writes a remark.
func (b *Books) Note(ctx context.Context, w Writer, id, text string) (Incident, error) {
	if err := checkText("text", text, maxText, true); err != nil {
		return Incident{}, err
	}
	return b.change(ctx, w, id, func(x Incident) (Incident, error) {
		return x.withNote(Note{Account: b.account(w, ""), Text: text})
	})
}

// Close closes a notebook, for good.
func (b *Books) Close(ctx context.Context, w Writer, id, reason string) (Incident, error) {
	if err := checkText("reason", reason, maxReason, false); err != nil {
		return Incident{}, err
	}
	return b.change(ctx, w, id, func(x Incident) (Incident, error) { return x.closed(b.account(w, reason)) })
}

func (b *Books) change(ctx context.Context, w Writer, id string, fn func(Incident) (Incident, error)) (Incident, error) {
	if commit.CheckIncident(id) != nil {
		return Incident{}, errMissing
	}
	from, err := b.cfg.From(ctx, w.Tenant)
	if err != nil {
		return Incident{}, err
	}
	x, err := b.store.change(ctx, w.Tenant, id, func(x Incident) (Incident, error) {
		if x.Stamp.Less(from) {
			return x, errMissing
		}
		return fn(x)
	})
	return x, missing(err)
}

// Check implements revocation.Notebooks.
func (b *Books) Check(ctx context.Context, tenant, id string) error {
	x, err := b.Find(ctx, tenant, id)
	if err == nil && x.Closed != nil {
		return errClosed(&x)
	}
	return err
}

// Planned implements revocation.Notebooks.
func (b *Books) Planned(ctx context.Context, who revocation.Caller, id string, p revocation.Planned) error {
	w := Writer{Tenant: who.Tenant, Actor: who.Actor, Request: who.Request}
	_, err := b.change(ctx, w, id, func(x Incident) (Incident, error) {
		return x.withPlan(Plan{Account: b.account(w, ""), ID: p.ID, Op: string(p.Op), Target: p.Target, Targets: p.Targets, Hits: p.Hits})
	})
	return err
}
