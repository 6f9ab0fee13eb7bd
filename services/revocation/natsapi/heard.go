package natsapi

import (
	"encoding/json"
	"strings"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// heardSubject is where replicas pass on what they heard: under the name of the
// service itself, which the broker lets nobody else use.
var heardSubject = wire.GuardSubject(identity.Revocation, wire.OpHeard)

// heard takes where a guard is, and passes it on to the other replicas.
func (s *Server) heard(m *nats.Msg, instance string, at wire.PositionJSON) {
	name := reader(m.Subject)
	s.Fleet.Heard(name, instance, at.Position())
	s.relay.Tell(wire.Heard{Name: name, Instance: instance, Position: at})
}

func (s *Server) heardReport(m *nats.Msg) {
	if r, err := wire.DecodeRequest[wire.Report](m.Data); err == nil {
		s.heard(m, r.Instance, r.Position)
	}
}

// heardAttempts takes who still tries with what was cut. It says nothing of where the
// guard is: no confirmation depends on it.
func (s *Server) heardAttempts(m *nats.Msg) {
	if s.Attempts == nil {
		return
	}
	if r, err := wire.DecodeRequest[wire.AttemptsReport](m.Data); err == nil {
		s.Attempts.Heard(reader(m.Subject), r)
	}
}

// heardRunning takes which requests go on. It says nothing of where the guard is either.
func (s *Server) heardRunning(m *nats.Msg) {
	if s.Running == nil {
		return
	}
	if r, err := wire.DecodeRequest[wire.RunningReport](m.Data); err == nil {
		s.Running.Heard(reader(m.Subject), r)
	}
}

// passOn publishes what was heard. It is lost on a broken connection, as the
// guards' own messages are.
func (s *Server) passOn(b wire.HeardBatch) {
	data, err := json.Marshal(b)
	if err == nil {
		err = s.NATS.Publish(heardSubject+"."+s.Ledger.Replica(), data)
	}
	if err != nil {
		s.Log.Debug("what was heard of guards is not passed on; their next probes tell as much", zap.Error(err))
	}
}

// heardElsewhere takes what another replica has heard. Each position is held
// against this replica's own log and joins, as if the guard had told it here.
func (s *Server) heardElsewhere(m *nats.Msg) {
	if strings.TrimPrefix(m.Subject, heardSubject+".") == s.Ledger.Replica() {
		return
	}
	b, err := wire.DecodeRequest[wire.HeardBatch](m.Data)
	if err != nil {
		s.Log.Debug("what another replica has heard can't be read", zap.Error(err))
		return
	}
	for _, h := range b.Heard {
		s.Fleet.Heard(h.Name, h.Instance, h.Position.Position())
	}
}
