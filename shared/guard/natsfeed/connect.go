package natsfeed

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	neturl "net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
)

// Timing of a connection. A server that is gone without a word is noticed after
// two pings, so that the reader is elsewhere before its default limit is over.
const (
	connectTimeout = 2 * time.Second
	reconnectWait  = 250 * time.Millisecond
	pingInterval   = 4 * time.Second
	pingsOut       = 2
)

// Connect opens the connection of a reader or service with the credentials in
// credsFile, under a name that the server shows to its operator, and returns the
// NATS user in them. The server need not be there yet; the connection tries for
// ever. More options come after those that every reader needs.
func Connect(url, credsFile, name string, log *zap.Logger, more ...nats.Option) (nc *nats.Conn, user string, err error) {
	if log == nil {
		log = zap.NewNop()
	}
	creds, err := os.ReadFile(credsFile)
	if err != nil {
		return nil, "", fmt.Errorf("NATS credentials: %w", err)
	}
	user, err = UserName(creds)
	if err != nil {
		return nil, "", fmt.Errorf("NATS credentials %s: %w", credsFile, err)
	}
	opts := append(Options(user, name, log), Credentials(credsFile))
	nc, err = nats.Connect(url, append(opts, more...)...)
	if err != nil {
		if bad := (*neturl.Error)(nil); errors.As(err, &bad) {
			err = bad.Err // its text has the URL, with a password if there is one
		}
		return nil, "", fmt.Errorf("NATS at %s: %w", redact(url), err)
	}
	return nc, user, nil
}

// Credentials are those in a file, read again for each connection, so that a
// replaced file counts from the next one. Unlike nats.UserCredentials it takes
// the path as it is: that expands $ and ~ in it.
func Credentials(path string) nats.Option {
	return nats.UserJWT(func() (string, error) {
		creds, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		token, err := nkeys.ParseDecoratedJWT(creds)
		clear(creds)
		return token, err
	}, func(nonce []byte) ([]byte, error) {
		creds, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		defer clear(creds)
		pair, err := nkeys.ParseDecoratedNKey(creds)
		if err != nil {
			return nil, err
		}
		defer pair.Wipe()
		return pair.Sign(nonce)
	})
}

// Options are what a connection needs whose user is named so: it comes back
// whatever happens, keeps nothing back for later while it is away, and takes
// answers only where no other user can listen.
func Options(user, name string, log *zap.Logger) []nats.Option {
	if log == nil {
		log = zap.NewNop()
	}
	t := &troubles{log: log}
	return []nats.Option{
		nats.Name(name),
		nats.Timeout(connectTimeout),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait, reconnectWait),
		// The same authentication error twice would close the connection for good.
		nats.IgnoreAuthErrorAbort(),
		// A request that waited for the reconnect would be answered long after it was
		// given up.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsOut),
		nats.CustomInboxPrefix("_INBOX_" + user),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { t.disconnected(err) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { t.connected(nc) }),
		nats.ConnectHandler(func(nc *nats.Conn) { t.connected(nc) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) { t.failed(sub, err) }),
	}
}

// troubles logs what happens to a connection, once each time it changes.
type troubles struct {
	log  *zap.Logger
	away atomic.Bool
	last atomic.Int64 // Unix seconds of the last error that was logged
}

func (t *troubles) disconnected(err error) {
	if err != nil && !t.away.Swap(true) {
		t.log.Warn("lost the connection to NATS; trying to get it back", zap.Error(err))
	}
}

func (t *troubles) connected(nc *nats.Conn) {
	t.away.Store(false)
	t.log.Info("connected to NATS", zap.String("server", nc.ConnectedUrlRedacted()))
}

func (t *troubles) failed(sub *nats.Subscription, err error) {
	// A slow consumer or a refused subject comes again and again.
	now := time.Now().Unix()
	if last := t.last.Load(); now-last < 10 || !t.last.CompareAndSwap(last, now) {
		return
	}
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	t.log.Warn("NATS error", zap.String("subject", subject), zap.Error(err))
}

// redact leaves of a URL what may be shown.
func redact(url string) string {
	if i := strings.LastIndexByte(url, '@'); i >= 0 {
		return url[i+1:]
	}
	return url
}

var errNoUser = errors.New("no user JWT with a name in it")

// UserName returns the name of the user in a credentials file. It stands in the
// subjects on which the user may ask.
func UserName(creds []byte) (string, error) {
	token, err := nkeys.ParseDecoratedJWT(creds)
	if err != nil {
		return "", errNoUser // its text could show what the file holds
	}
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 3 {
		return "", errNoUser
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", errNoUser
	}
	// The server has verified the token before the name means anything; here it
	// only tells on which subjects to ask.
	var claims struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || wire.CheckInstance(claims.Name) != nil {
		return "", errNoUser
	}
	return claims.Name, nil
}
