package kvstore

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/rotator/schedule"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

// SchedulesBucket is the bucket of schedules, by tenant and name.
const SchedulesBucket = "schedules"

// scheduleHistory is how many revisions of a record are kept: the audit follower reads each
// change, however late it comes.
const scheduleHistory = 64

// Schedules implements schedule.Store. It keeps a copy of the bucket, as it was written: of
// 100,000 records few are looked at.
type Schedules struct {
	late *kv.Late
	log  *zap.Logger

	order sync.Mutex // of see

	mu   sync.RWMutex
	all  bool                           // every record that there was has been seen
	copy map[string]map[string]*written // by tenant and name
	take func(tenant, name string, revision uint64, s *schedule.Schedule)
}

// written is a revision of a record; no text: it was removed.
type written struct {
	text     []byte
	revision uint64
}

var errSchedules = errors.New("the schedules have not been read yet")

// NewSchedules returns a store whose bucket is made with so many replicas.
func NewSchedules(js jetstream.JetStream, replicas int, log *zap.Logger) *Schedules {
	cfg := kv.StreamOf(SchedulesBucket, "what is rotated when, and what was last", replicas)
	cfg.MaxMsgsPerSubject = scheduleHistory
	return &Schedules{late: kv.NewLate(js, cfg, "the schedules can't be read yet; try again"), log: log, copy: map[string]map[string]*written{}}
}

// scheduleKey: neither a tenant's name nor a schedule's has a dot.
func scheduleKey(tenant, name string) string { return tenant + "." + name }

// FollowSchedules implements schedule.Store.
func (s *Schedules) FollowSchedules(ctx context.Context, take func(string, string, uint64, *schedule.Schedule)) error {
	s.mu.Lock()
	s.take = take
	s.mu.Unlock()
	if s.late.Open(ctx, func(err error) { s.log.Info("waiting for JetStream", zap.Error(err)) }) != nil {
		return nil // ctx has ended
	}
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return nil // as above
	}
	return follow(ctx, s.log, b, s.entry)
}

func (s *Schedules) entry(e jetstream.KeyValueEntry) {
	if e == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all = true
		return
	}
	tenant, name, found := strings.Cut(e.Key(), ".")
	if !found || strings.HasPrefix(e.Key(), kv.BeatPrefix) {
		return
	}
	if s.seen(tenant, name, e.Revision()) {
		return // a watch that is begun anew brings everything
	}
	if e.Operation() != jetstream.KeyValuePut {
		s.see(tenant, name, e.Revision(), nil, nil)
		return
	}
	x, err := decode(e.Value(), e.Revision())
	if err != nil || x.Tenant != tenant || x.Name != name {
		s.log.Error("record of a schedule can't be read", zap.String("key", e.Key()), zap.Error(err))
		return
	}
	s.see(tenant, name, e.Revision(), &x, e.Value())
}

func decode(text []byte, revision uint64) (x schedule.Schedule, err error) {
	err = json.Unmarshal(text, &x)
	x.Revision = revision
	return x, err
}

func (s *Schedules) seen(tenant, name string, revision uint64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	w := s.copy[tenant][name]
	return w != nil && w.revision >= revision
}

// see takes a revision of a record, unless a newer one was seen. Of one that was removed the
// revision stays, so that an older one which comes late does not bring it back.
func (s *Schedules) see(tenant, name string, revision uint64, x *schedule.Schedule, text []byte) {
	s.order.Lock() // take is called in the order of revisions, and without the lock of readers
	defer s.order.Unlock()
	s.mu.Lock()
	if s.copy[tenant] == nil {
		s.copy[tenant] = map[string]*written{}
	}
	w := s.copy[tenant][name]
	if w != nil && w.revision >= revision {
		s.mu.Unlock()
		return
	}
	s.copy[tenant][name] = &written{slices.Clip(text), revision}
	take := s.take
	s.mu.Unlock()
	if take != nil {
		take(tenant, name, revision, x)
	}
}

// wrote takes what this replica has written itself.
func (s *Schedules) wrote(x schedule.Schedule, revision uint64) (schedule.Schedule, error) {
	x.Revision = revision
	text, err := json.Marshal(x)
	if err != nil {
		return x, err
	}
	s.see(x.Tenant, x.Name, revision, &x, text)
	return x, nil
}

// Schedule implements schedule.Store.
func (s *Schedules) Schedule(ctx context.Context, tenant, name string) (schedule.Schedule, error) {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return schedule.Schedule{}, err
	}
	x, rev, err := kv.Get[schedule.Schedule](ctx, b, scheduleKey(tenant, name))
	x.Revision = rev
	return x, err
}

// CreateSchedule implements schedule.Store.
func (s *Schedules) CreateSchedule(ctx context.Context, x schedule.Schedule) (schedule.Schedule, error) {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return x, err
	}
	rev, err := kv.Create(ctx, b, scheduleKey(x.Tenant, x.Name), x)
	if err != nil {
		return x, err
	}
	return s.wrote(x, rev)
}

// ChangeSchedule implements schedule.Store.
func (s *Schedules) ChangeSchedule(ctx context.Context, tenant, name string, fn func(*schedule.Schedule) error) (schedule.Schedule, error) {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return schedule.Schedule{}, err
	}
	x, rev, err := kv.Change(ctx, b, scheduleKey(tenant, name), func(cur schedule.Schedule) (schedule.Schedule, error) {
		err := fn(&cur)
		return cur, err
	})
	if err != nil {
		return x, err
	}
	return s.wrote(x, rev)
}

// RemoveSchedule implements schedule.Store.
func (s *Schedules) RemoveSchedule(ctx context.Context, tenant, name string, ok func(*schedule.Schedule) bool) error {
	b, err := s.late.Bucket(ctx)
	if err != nil {
		return err
	}
	return kv.Remove(ctx, b, scheduleKey(tenant, name), func(x schedule.Schedule) bool { return ok(&x) })
}

// Read implements schedule.Store.
func (s *Schedules) Read() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.all {
		return problem.Wrap(problem.Unavailable, errSchedules, "the schedules have not been read yet; try again")
	}
	return nil
}

// Schedules implements schedule.Store.
func (s *Schedules) Schedules(tenant string) ([]schedule.Schedule, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.all {
		return nil, problem.Wrap(problem.Unavailable, errSchedules, "the schedules have not been read yet; try again")
	}
	var out []schedule.Schedule
	for _, w := range s.copy[tenant] {
		if w.text == nil {
			continue
		}
		x, err := decode(w.text, w.revision)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// Copy implements schedule.Store.
func (s *Schedules) Copy(tenant, name string) (schedule.Schedule, error) {
	s.mu.RLock()
	w := s.copy[tenant][name]
	all := s.all
	s.mu.RUnlock()
	switch {
	case !all:
		return schedule.Schedule{}, problem.Wrap(problem.Unavailable, errSchedules, "the schedules have not been read yet; try again")
	case w == nil || w.text == nil:
		return schedule.Schedule{}, problem.New(problem.NotFound, "there is no such schedule")
	}
	return decode(w.text, w.revision)
}
