package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/pflag"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/commit"
)

// noIncident as an incident is none, whatever the environment or the context says.
const noIncident = "none"

func incidentFlag(fl *pflag.FlagSet, into *string) {
	fl.StringVar(into, "incident", "", "the incident under which it is done; none for none (default $QUASH_INCIDENT, or what quash incident open has opened)")
}

// who is as whom and where commands are done: an incident is one of a tenant.
func (p place) who() string { return p.Issuer + " " + p.KeyFile }

// underIncident returns the incident under which a command is done; empty: none. Where the
// context can't be read there is none: no cut fails for that.
func (a *app) underIncident(flag string) (string, error) {
	id := a.or(flag, "QUASH_INCIDENT")
	if id == "" {
		kept, who, err := a.keptIncidents()
		if err != nil {
			a.note("no incident is known, and it is done under none: %v", err)
			return "", nil
		}
		a.keptIncident = kept.Incidents[who.who()]
		return a.keptIncident, nil
	}
	if id == noIncident {
		return "", nil
	}
	if err := commit.CheckIncident(id); err != nil {
		return "", usage("--incident %w, or none", err)
	}
	return id, nil
}

// refusedKept reports whether an answer refuses an incident that nobody has named, only the
// context: somebody else has closed it. Then it is left, so that no cut fails for it, and the
// request is good to be sent again.
func (a *app) refusedKept(err error, incident *string) (again bool) {
	var refused *client.Refused
	if *incident == "" || *incident != a.keptIncident || !errors.As(err, &refused) || refused.Doc.Field != "incident" {
		return false
	}
	a.leaveKept()
	*incident = ""
	return true
}

// leaveKept has this command and those that follow done under no incident.
func (a *app) leaveKept() {
	if a.left {
		return
	}
	a.left = true
	a.note("the incident %s, which was open here, is closed or gone: this is done under none", clean(a.keptIncident))
	if err := a.keepIncident("", a.keptIncident); err != nil {
		a.note("%s", clean(fmt.Sprintf("it is still kept for the commands that follow: %v", err)))
	}
}

// openIncident is underIncident for what another service does, which can't look whether the
// incident is open. Where nobody can say so it goes on.
func (a *app) openIncident(ctx context.Context, cl *client.Client, flag string) (string, error) {
	id, err := a.underIncident(flag)
	if err != nil || id == "" {
		return id, err
	}
	x, err := cl.GetIncident(ctx, id)
	ended := refusedAs(err, http.StatusNotFound) || err == nil && x.Value.State != api.IncidentStateOpen
	switch {
	case ended && id == a.keptIncident:
		a.leaveKept()
		return "", nil
	case refusedAs(err, http.StatusNotFound):
		return "", usage("there is no incident %s, or it has ended; open one, or do it with --incident none", id)
	case err != nil:
		a.notGathered("the notebook could not be asked, and nothing waits for it")
	case x.Value.State != api.IncidentStateOpen:
		return "", &exit{Failed, fmt.Errorf("the incident %s is closed: open another, or do it with --incident none", id)}
	}
	return id, nil
}

// theIncident returns the incident that an argument names, or the one under which commands are
// done.
func (a *app) theIncident(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	id, err := a.underIncident("")
	if err == nil && id == "" {
		err = usage("name an incident: none is open here; quash incident list names those that there are")
	}
	return id, err
}

func (a *app) keptIncidents() (contexts, place, error) {
	who, err := a.signedIn()
	if err != nil {
		return contexts{}, who, err
	}
	if _, err := a.contextsPath(); err != nil {
		return contexts{}, who, nil //nolint:nilerr // without a place for contexts there is none
	}
	kept, err := a.contexts()
	return kept, who, err
}

// keepIncident has the commands that follow done under an incident; none for "", if it was
// that one.
func (a *app) keepIncident(id, closed string) error {
	kept, who, err := a.keptIncidents()
	if err == nil && kept.path == "" {
		_, err = a.contextsPath()
	}
	if err != nil {
		return err
	}
	switch {
	case id != "":
		if kept.Incidents == nil {
			kept.Incidents = map[string]string{}
		}
		kept.Incidents[who.who()] = id
	case kept.Incidents[who.who()] == closed:
		delete(kept.Incidents, who.who())
	default:
		return nil
	}
	return kept.write()
}

// notGathered tells why something is not in the notebook of its incident.
func (a *app) notGathered(why string) {
	if why != "" {
		a.note("%s", clean("not gathered: "+why))
	}
}

// kept tells what became of an incident's place in the context.
func (a *app) kept(id string, err error) {
	if err != nil {
		a.note("%s", clean(fmt.Sprintf("it is not kept for the commands that follow: %v; set QUASH_INCIDENT=%s", err, id)))
		return
	}
	a.note("revoke, hold, release and undo are done under it from now on; --incident none does one without")
}
