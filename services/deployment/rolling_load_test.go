package deployment

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What a client may do, and what a real one behind a balancer does: when a
// connection fails, or the answer is 503, it asks again, the other replica where it
// knows both, for so long. Any other answer is the answer: a 401, a 403 or a 500
// for what is good is a refusal at the first time.
const (
	patience = 5 * time.Second
	pause    = 50 * time.Millisecond
	oneTry   = 3 * time.Second
)

// load is clients that use a deployment, and what became of what they asked.
type load struct {
	r        *running
	client   *http.Client
	issuer   string
	demos    []string
	revokers []string
	operator atomic.Pointer[string] // a token

	exchanges, uses, revocations, checks atomic.Int64 // that were answered as they must be
	retries                              atomic.Int64
	slowest                              atomic.Int64 // nanoseconds until a valid request was answered

	mu    sync.Mutex
	step  string         // what is being done to the deployment
	again map[string]int // why was asked again, by step
	dead  []credential   // whose revocation was answered as complete
	wrong []string       // refused although valid, or accepted although revoked
}

type credential struct{ id, secret, token string }

// answer is what a request came to.
type answer struct {
	status int
	body   []byte
}

// ask asks the first address, then the others in turn. It returns the answer, which
// is a 503 or an error only once the patience is over.
func (l *load) ask(ctx context.Context, make func(address string) (*http.Request, error), addresses ...string) (answer, error) {
	begun := time.Now()
	defer func() {
		took := int64(time.Since(begun))
		for was := l.slowest.Load(); took > was && !l.slowest.CompareAndSwap(was, took); was = l.slowest.Load() {
		}
	}()
	for i := 0; ; i++ {
		a, err := l.once(ctx, make, addresses[i%len(addresses)])
		if err == nil && a.status != http.StatusServiceUnavailable || ctx.Err() != nil || time.Since(begun) > patience {
			return a, err
		}
		why := "503"
		if err != nil {
			why = "no answer"
		}
		l.retries.Add(1)
		l.mu.Lock()
		l.again[l.step+": "+why]++
		l.mu.Unlock()
		if i%len(addresses) == len(addresses)-1 {
			time.Sleep(pause)
		}
	}
}

func (l *load) once(ctx context.Context, make func(string) (*http.Request, error), address string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	req, err := make(address)
	if err != nil {
		return answer{}, err
	}
	resp, err := l.client.Do(req.WithContext(ctx))
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return answer{resp.StatusCode, body}, err
}

// valid notes a valid request that was refused, and reports whether it was not.
func (l *load) valid(ctx context.Context, what string, a answer, err error, want ...int) bool {
	for _, status := range want {
		if err == nil && a.status == status {
			return true
		}
	}
	if ctx.Err() == nil {
		l.fault("a valid request was refused: %s: status %d, %v: %.300s", what, a.status, err, a.body)
	}
	return false
}

func (l *load) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, l.step+": "+fmt.Sprintf(format, args...))
}

func (l *load) now(step string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.step = step
}

// exchange asks for a token of an API key, at the issuer's one address.
func (l *load) exchange(ctx context.Context, secret string) (answer, error) {
	form := url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token_type": {"urn:quash:token-type:api-key"}, "subject_token": {secret},
	}.Encode()
	return l.ask(ctx, func(address string) (*http.Request, error) {
		req, err := http.NewRequest(http.MethodPost, address+"/oauth/token", strings.NewReader(form))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}, l.issuer)
}

func (l *load) token(ctx context.Context, secret string) (string, bool) {
	a, err := l.exchange(ctx, secret)
	if !l.valid(ctx, "an exchange", a, err, http.StatusOK) {
		return "", false
	}
	var out struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(a.body, &out); err != nil || out.AccessToken == "" {
		l.fault("an exchange was answered %.300s", a.body)
		return "", false
	}
	l.exchanges.Add(1)
	return out.AccessToken, true
}

func orders(token string) func(string) (*http.Request, error) {
	return func(address string) (*http.Request, error) {
		req, err := http.NewRequest(http.MethodGet, address+"/orders", nil)
		if err == nil {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		return req, err
	}
}

// use uses a good token at a demo server, or at the other one if that does not answer.
func (l *load) use(ctx context.Context, first int, token string) bool {
	a, err := l.ask(ctx, orders(token), l.demos[first%2], l.demos[(first+1)%2])
	if !l.valid(ctx, "an API call", a, err, http.StatusOK) {
		return false
	}
	l.uses.Add(1)
	return true
}

// call asks an API of Quash as the operator.
func (l *load) call(ctx context.Context, path, key string, body any, addresses ...string) (answer, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return answer{}, err
	}
	return l.ask(ctx, func(address string) (*http.Request, error) {
		req, err := http.NewRequest(http.MethodPost, address+path, bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+*l.operator.Load())
		req.Header.Set("Content-Type", "application/json")
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
		return req, nil
	}, addresses...)
}

// key makes an API key of an owner.
func (l *load) key(ctx context.Context, owner string) (credential, bool) {
	a, err := l.call(ctx, "/v1/keys", "", map[string]any{"owner": owner, "scopes": []string{"orders:read"}}, l.issuer)
	if !l.valid(ctx, "making a key", a, err, http.StatusCreated) {
		return credential{}, false
	}
	var out struct{ ID, Secret string }
	if err := json.Unmarshal(a.body, &out); err != nil || out.Secret == "" {
		l.fault("making a key was answered with status %d and no key", a.status)
		return credential{}, false
	}
	return credential{id: out.ID, secret: out.Secret}, true
}

// shop is a client that lives on one key: it exchanges it, and uses each token at
// both demo servers.
func (l *load) shop(ctx context.Context, n int) {
	c, ok := l.key(ctx, fmt.Sprintf("shop-%d", n))
	for i := n; ok && ctx.Err() == nil; i++ {
		token, ok := l.token(ctx, c.secret)
		for use := 0; ok && use < 6 && ctx.Err() == nil; use++ {
			ok = l.use(ctx, i+use, token)
			time.Sleep(5 * time.Millisecond) // leave some of the machine to the services
		}
	}
}

// revoke makes keys, lets their tokens be taken everywhere, and revokes them.
func (l *load) revoke(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		c, ok := l.key(ctx, fmt.Sprintf("victim-%d", n))
		if ok {
			c.token, ok = l.token(ctx, c.secret)
		}
		if !ok || !l.use(ctx, 0, c.token) || !l.use(ctx, 1, c.token) {
			continue
		}
		complete := false
		for try := 0; !complete && ctx.Err() == nil; try++ {
			// The same key is the same revocation, at whichever replica.
			a, err := l.call(ctx, "/v1/revocations?wait=2s", c.id, map[string]any{
				"op": "revoke", "targets": []string{"key:" + c.id}, "reason": "a test",
			}, l.revokers[n%2], l.revokers[(n+1)%2])
			if !l.valid(ctx, "a revocation", a, err, http.StatusOK, http.StatusCreated) {
				break
			}
			var out struct{ Complete bool }
			if err := json.Unmarshal(a.body, &out); err != nil {
				l.fault("a revocation was answered %.300s", a.body)
				break
			}
			complete = out.Complete
		}
		if complete {
			l.revocations.Add(1)
			l.mu.Lock()
			l.dead = append(l.dead, c)
			l.mu.Unlock()
			l.refused(ctx, c)
		}
	}
}

// refused asks with what is revoked, everywhere, once: no answer is no acceptance.
func (l *load) refused(ctx context.Context, c credential) {
	for _, demo := range l.demos {
		if a, err := l.once(ctx, orders(c.token), demo); err == nil && a.status == http.StatusOK {
			l.fault("a token whose revocation is complete was accepted at %s", demo)
		} else if err == nil && a.status == http.StatusUnauthorized {
			l.checks.Add(1)
		}
	}
}

// haunt asks again and again with what is revoked.
func (l *load) haunt(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		l.mu.Lock()
		var c credential
		if n := len(l.dead); n > 0 {
			c = l.dead[i%n]
		}
		l.mu.Unlock()
		if c.token != "" {
			l.refused(ctx, c)
			if i%5 == 0 {
				if a, err := l.exchange(ctx, c.secret); err == nil && a.status == http.StatusOK {
					l.fault("a key whose revocation is complete was exchanged")
				}
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// begin starts the clients; stop ends them.
func begin(r *running, shops int) (l *load, stop func(), err error) {
	l = &load{
		r: r, client: r.client(), issuer: r.process(issuerAddress).Addresses[0], again: map[string]int{}, step: "start",
		demos:    []string{r.process("demo-1").Addresses[0], r.process("demo-2").Addresses[0]},
		revokers: []string{r.process("revocation-1").Addresses[0], r.process("revocation-2").Addresses[0]},
	}
	l.client.Timeout = 0
	secret, err := os.ReadFile(r.dir + "/secrets/operator.key")
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	token, ok := l.token(ctx, strings.TrimSpace(string(secret)))
	if !ok {
		cancel()
		return nil, nil, errors.New("the operator's key is not exchanged")
	}
	l.operator.Store(&token)
	var running sync.WaitGroup
	for n := range shops {
		running.Go(func() { l.shop(ctx, n) })
	}
	running.Go(func() { l.revoke(ctx) })
	running.Go(func() { l.haunt(ctx) })
	return l, func() { cancel(); running.Wait() }, nil
}
