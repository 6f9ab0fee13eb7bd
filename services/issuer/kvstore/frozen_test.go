package kvstore

import (
	"crypto/rand"
	"encoding/json"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap/zaptest"

	"github.com/quash-project/quash/schemas"
	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/issuer"
)

// reread reads a row as the table does, and writes it as the table does.
func (t *table[T, R]) reread(text []byte) ([]byte, error) {
	var row R
	if err := json.Unmarshal(text, &row); err != nil {
		return nil, err
	}
	return json.Marshal(t.toRow(t.fromRow(row)))
}

func (t *table[T, R]) name() string { return t.bucket }

// TestFrozenRecordsAreReadAndWrittenAsEver: two versions of the issuer work on the
// same buckets while it is upgraded, and a backup is as old as it is. What an older
// one has written is read, and what is written says the same in the same words.
func TestFrozenRecordsAreReadAndWrittenAsEver(t *testing.T) {
	s, err := New(Config{NATS: &nats.Conn{}, Log: zaptest.NewLogger(t), Now: time.Now, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range s.tables {
		table := table.(interface {
			name() string
			reread(text []byte) ([]byte, error)
		})
		paths, err := fs.Glob(schemas.FS(), "samples/v1/record-"+table.name()+"*.json")
		if err != nil || len(paths) == 0 {
			t.Errorf("no sample of a record in the bucket %s: %v", table.name(), err)
		}
		for _, path := range paths {
			t.Run(strings.TrimPrefix(path, "samples/v1/"), func(t *testing.T) {
				text := schematest.Read(t, path)
				b, err := table.reread(text)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := tree(t, b), tree(t, text); !reflect.DeepEqual(got, want) {
					t.Errorf("got  %s\nwant %s", b, text)
				}
			})
		}
	}
}

func tree(t *testing.T, text []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestRecordsOfANewerIssuerAreRead: a member that this version does not know says
// nothing to it.
func TestRecordsOfANewerIssuerAreRead(t *testing.T) {
	text := schematest.Read(t, "samples/v1/record-keys-marked.json")
	var old, newer keyRow
	if err := json.Unmarshal(text, &old); err != nil {
		t.Fatal(err)
	}
	later := strings.ReplaceAll(string(text), "{", `{"later":{"a":[1]},`)
	if err := json.Unmarshal([]byte(later), &newer); err != nil {
		t.Fatal(err)
	}
	if a, b := keyFromRow(old), keyFromRow(newer); !reflect.DeepEqual(a, b) || a.Kind != issuer.APIKey {
		t.Errorf("got  %+v\nwant %+v", b, a)
	}
}
