// Package hits is how the revocation service asks the issuer what a cut would hit: the
// issuer has the records, and an index of them in memory.
package hits

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"github.com/quash-project/quash/shared/commit"
)

// Operation is where a Request is sent, after wire.RecordsIssuer.
const Operation = "hits"

// Within bounds the answer: nobody waits for it any longer.
const Within = 20 * time.Second

// Request asks what would be hit. The issuer is the tenant's own: of others there are no
// records.
type Request struct {
	Tenant  string          `json:"tenant"`
	Op      commit.Op       `json:"op"` // revoke or hold
	Targets []commit.Target `json:"targets"`
	// Epoch and Sequence are how far the issuer has to have applied the log before it
	// answers.
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
}

// Answer counts records that are good now and would not be any more. Each record is counted
// as it is when it comes up, at some moment between request and answer: what changes in
// between may be in it or not.
type Answer struct {
	Keys     int `json:"keys"`     // API keys
	Secrets  int `json:"secrets"`  // client secrets
	Clients  int `json:"clients"`  //
	Roles    int `json:"roles"`    //
	Bindings int `json:"bindings"` //
	// Narrowed are API keys and client secrets that stay good and lose a role.
	Narrowed int `json:"narrowed"`
	// ByClient are the clients whose keys and secrets are hit, those with the most first,
	// MaxClients at most; MoreClients is how many are left out.
	ByClient    []Client `json:"by_client"`
	MoreClients int      `json:"more_clients,omitempty"`
	// Unknown are those targets that name a record which is not there.
	Unknown []commit.Target `json:"unknown,omitempty"`
	// LastAdmin says that nobody would hold the role any more that rules the tenant.
	LastAdmin bool `json:"last_admin,omitempty"`
	// Boxes is what is hit; see Boxes.
	Boxes Boxes `json:"boxes"`
}

// MaxClients is how many clients an answer has.
const MaxClients = 100

// Client counts the keys and secrets of a client; an empty id stands for keys that are
// clients of their own.
type Client struct {
	ID   string `json:"id"`
	Keys int    `json:"keys"`
}

// boxes is how many there are.
const boxes = 4096

// Boxes tells whether a set has grown without naming its members: each is put into one of
// 4,096 boxes by its hash, and they are counted. A set that has lost some and got none has
// no box with more; one new member among the same number shows but in one case of 4,096,
// and a greater number always.
type Boxes [boxes]uint32

// Add puts a member into its box.
func (b *Boxes) Add(member string) {
	sum := sha256.Sum256([]byte(member))
	b[binary.BigEndian.Uint16(sum[:])%boxes]++
}

// Grown reports whether there are members that were not there in before.
func (b *Boxes) Grown(before *Boxes) bool {
	for i, n := range b {
		if n > before[i] {
			return true
		}
	}
	return false
}

// MarshalText writes runs of empty boxes as one number, since most are: per box with
// something in it how many empty ones are before it, and what it has.
func (b Boxes) MarshalText() ([]byte, error) {
	var out []byte
	empty := uint64(0)
	for _, n := range b {
		if n == 0 {
			empty++
			continue
		}
		out = binary.AppendUvarint(out, empty)
		out = binary.AppendUvarint(out, uint64(n))
		empty = 0
	}
	return base64.RawURLEncoding.AppendEncode(nil, out), nil
}

var errBoxes = errors.New("hits: boxes that can't be read")

// UnmarshalText reads what MarshalText wrote.
func (b *Boxes) UnmarshalText(text []byte) error {
	data, err := base64.RawURLEncoding.Strict().AppendDecode(nil, text)
	if err != nil {
		return errors.Join(errBoxes, err)
	}
	var out Boxes
	for at := uint64(0); len(data) > 0; at++ {
		empty, n := binary.Uvarint(data)
		if n <= 0 {
			return errBoxes
		}
		data = data[n:]
		has, n := binary.Uvarint(data)
		if n <= 0 || has == 0 || has > 1<<32-1 {
			return errBoxes
		}
		data = data[n:]
		if empty >= boxes || at+empty >= boxes {
			return errBoxes
		}
		at += empty
		out[at] = uint32(has)
	}
	*b = out
	return nil
}
