package cli

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/services/revocation/httpapi"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/commit"
)

func TestWideTargetsAreConfirmedByName(t *testing.T) {
	eleven := slices.Repeat([]string{"key:x"}, 11)
	for _, c := range []struct {
		targets []string
		want    string
	}{
		{[]string{"principal:alice"}, "alice"},
		{[]string{"tenant:default"}, "default"},
		{[]string{"key:x"}, ""},
		{[]string{"token:x", "key:y"}, ""},
		{[]string{"key:x", "client:y"}, "2"},
		{eleven[:10], ""},
		{eleven, "11"},
	} {
		if got := wide(c.targets); got != c.want {
			t.Errorf("%q: %q, want %q", c.targets, got, c.want)
		}
	}
}

func TestPartsOfAPreviewAreAdded(t *testing.T) {
	sum := api.Preview{
		APIKeys: api.Count{Count: 2, Exact: true}, Tokens: api.Tokens{Bounded: true, AtMost: 1},
		ByClient: []api.ClientHits{{ClientID: "a", Keys: 2}}, Targets: []string{"key:x"},
	}
	add(&sum, &api.Preview{
		APIKeys: api.Count{Count: 3, Exact: true}, Narrowed: api.Count{Count: 1}, CutsCaller: true,
		ByClient: []api.ClientHits{{ClientID: "b", Keys: 4}, {ClientID: "a", Keys: 1}}, Targets: []string{"key:y"},
	})
	if sum.APIKeys != (api.Count{Count: 5, Exact: true}) || sum.Narrowed.Exact || sum.Tokens.Bounded || !sum.CutsCaller || len(sum.Targets) != 2 ||
		!slices.Equal(sum.ByClient, []api.ClientHits{{ClientID: "b", Keys: 4}, {ClientID: "a", Keys: 3}}) {
		t.Errorf("%+v", sum)
	}
}

// The words of the API are those that the log takes.
func TestCodesOfTheAPI(t *testing.T) {
	f, _ := reflect.TypeFor[httpapi.Commit]().FieldByName("Code")
	if got := strings.Split(f.Tag.Get("enum"), ","); !slices.Equal(got, commit.Codes()) {
		t.Errorf("the API has %q, the log %q", got, commit.Codes())
	}
}

func TestIDsThatLookLikeFlagsAreIDs(t *testing.T) {
	id := "-SvGlK1zoVQ0uNXsPVLraXgHu3O3EgHUqZyNbDaMkNU"
	for _, c := range [][2][]string{
		{{"undo", id, "--reason", "r"}, {"undo", "--reason", "r", "--", id}},
		{{"undo", "--reason", "r", "--", id}, {"undo", "--reason", "r", "--", id}},
		{{"undo", "x", "--reason", "r"}, {"undo", "x", "--reason", "r"}},
	} {
		if got := idsApart(c[0]); !slices.Equal(got, c[1]) {
			t.Errorf("%q: %q", c[0], got)
		}
	}
}

// TestServersOfPartsAreAdded: who has seen a part has seen the whole, and who has not said
// of one has not said that it has seen nothing; the shorter memory counts.
func TestServersOfPartsAreAdded(t *testing.T) {
	early, late := time.Unix(1000, 0), time.Unix(2000, 0)
	server := func(seen api.ResourceServerSeen, since time.Time) api.Preview {
		return api.Preview{ResourceServersSeen: true, ResourceServers: []api.ResourceServer{{Name: "orders", Instance: "a", Seen: seen, RemembersSince: since}}}
	}
	const yes, no, unknown = api.ResourceServerSeenYes, api.ResourceServerSeenNo, api.ResourceServerSeenUnknown
	for _, c := range []struct{ a, b, want api.ResourceServerSeen }{
		{yes, no, yes}, {no, yes, yes}, {yes, unknown, yes}, {unknown, yes, yes}, {no, no, no}, {no, unknown, unknown}, {unknown, no, unknown}, {yes, yes, yes},
	} {
		sum, part := server(c.a, early), server(c.b, late)
		addServers(&sum, &part)
		if got := sum.ResourceServers; len(got) != 1 || got[0].Seen != c.want || c.a == no && c.b == no && !got[0].RemembersSince.Equal(late) {
			t.Errorf("%s and %s: %+v, want %s", c.a, c.b, got, c.want)
		}
	}
	sum, part := server(no, early), server(no, early)
	part.ResourceServersSeen = false
	if addServers(&sum, &part); sum.ResourceServersSeen {
		t.Error("a part was not asked about, and the sum says it was")
	}
	sum.ResourceServersSeen = true
	if text := strings.Join(seenBy(&sum), "\n"); text != "not seen by\n1" {
		t.Error(text)
	}
	sum = server(yes, early)
	if text := strings.Join(seenBy(&sum), "\n"); !strings.HasPrefix(text, "seen by\norders a, of what it remembers since ") {
		t.Error(text)
	}
}
