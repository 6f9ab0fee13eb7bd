package revoke

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestTargetsThatCannotBeAreRefused(t *testing.T) {
	long := strings.Repeat("x", MaxID)
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"plain":               {"principal:alice", true},
		"colons":              {"principal:auth0|a:b:c", true},
		"longest":             {"principal:" + long, true},
		"too long":            {"principal:" + long + "x", false},
		"empty":               {"principal:", false},
		"no kind":             {"alice", false},
		"unknown kind":        {"person:alice", false},
		"capital kind":        {"Principal:alice", false},
		"control":             {"principal:a\x00b", false},
		"escaped control":     {"principal:a%0ab", false},
		"C1 control":          {"principal:a\u0085b", false},
		"invalid UTF-8":       {"principal:a\xff", false},
		"escaped invalid":     {"principal:a%ff", false},
		"slash":               {"principal:a/b", false},
		"escaped slash":       {"principal:a%2Fb", true},
		"bad escape":          {"principal:a%2", false},
		"pair":                {"grant:alice/web", true},
		"pair of odd halves":  {"binding:a%2Fb/c%25d", true},
		"half a pair":         {"grant:alice", false},
		"empty half":          {"grant:alice/", false},
		"three halves":        {"grant:a/b/c", false},
		"tenant":              {"tenant:default", true},
		"another tenant":      {"tenant:other", false},
		"issuer":              {"issuer:own", true},
		"an issuer not asked": {"issuer:okta", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseTarget("default", "", c.text)
			if (err == nil) != c.ok {
				t.Fatalf("ParseTarget(%.60q) = %+v, %v", c.text, got, err)
			}
			if err != nil && len(err.Error()) > 300 {
				t.Errorf("a long error: %v", err)
			}
		})
	}
}

func TestRevokingEndsWhatIsNeverGivenOutAgain(t *testing.T) {
	final := []Kind{KindToken, KindSession, KindKey, KindSigningKey}
	if len(Kinds()) != 12 {
		t.Errorf("%d kinds", len(Kinds()))
	}
	for _, k := range Kinds() {
		if k.Final() != slices.Contains(final, k) {
			t.Errorf("%s: Final is %t", k, k.Final())
		}
		if back, err := ParseKind(k.String()); back != k || err != nil {
			t.Errorf("%s comes back as %s, %v", k, back, err)
		}
	}
}

func TestStatesMergeInAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		a, b, c := randomState(r), randomState(r), randomState(r)
		if a.Merge(b) != b.Merge(a) || a.Merge(b).Merge(c) != a.Merge(b.Merge(c)) || a.Merge(a) != a || a.Merge(State{}) != a {
			t.Fatalf("%+v, %+v, %+v", a, b, c)
		}
	}
}

func TestCutHitsWhatWasMadeBeforeAndNothingElse(t *testing.T) {
	at := func(e, s uint64) Stamp { return Stamp{e, s} }
	two := Epochs{}.With(Epoch{Number: 10}).With(Epoch{Number: 20, D: at(10, 5)})
	for name, c := range map[string]struct {
		state State
		stamp Stamp
		want  bool
	}{
		"nothing":                        {State{}, at(10, 1), false},
		"before the cut":                 {State{Cut: at(20, 4)}, at(20, 3), true},
		"at the cut":                     {State{Cut: at(20, 4)}, at(20, 4), false},
		"after the cut":                  {State{Cut: at(20, 4)}, at(20, 5), false},
		"older epoch":                    {State{Cut: at(20, 4)}, at(10, 99), true},
		"ended":                          {State{Ended: true}, at(20, 99), true},
		"held":                           {State{Held: at(20, 4)}, at(20, 99), true},
		"released":                       {State{Held: at(20, 4), Released: at(20, 4)}, at(20, 99), false},
		"held again":                     {State{Held: at(20, 7), Released: at(20, 4)}, at(20, 99), true},
		"cut and released":               {State{Held: at(20, 4), Released: at(20, 4), Cut: at(20, 9)}, at(20, 8), true},
		"made in a lost history":         {State{Cut: at(10, 6)}, at(10, 8), true},
		"made in the shared part":        {State{Cut: at(10, 3)}, at(10, 4), false},
		"made in the new history":        {State{Cut: at(10, 6)}, at(20, 1), false},
		"released by a lost hold's name": {State{Held: at(10, 7), Released: at(10, 9)}, at(20, 1), true},
		"released in the shared part":    {State{Held: at(10, 4), Released: at(10, 5)}, at(20, 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.state.Hits(c.stamp, two); got != c.want {
				t.Errorf("%+v hits %s: %t", c.state, c.stamp, got)
			}
			v := NewView()
			v.MergeEpoch(two[1])
			v.MergeEpoch(two[0])
			v.Merge(Key{1}, c.state)
			if got := v.Hit(Key{1}, c.stamp); got != c.want {
				t.Errorf("the view says %t", got)
			}
		})
	}
}

func TestEpochsOfALog(t *testing.T) {
	e := func(n uint64, restore bool) Epoch { return Epoch{Number: n, D: Stamp{1, n}, Restore: restore} }
	log := Epochs{e(1, false), e(5, false)}
	for _, c := range []struct {
		name      string
		had, want Epochs
	}{
		{"nothing", nil, log},
		{"one that the log lost", Epochs{e(1, false), e(3, false)}, log},
		{"one that a restore began", Epochs{e(3, true)}, Epochs{e(1, false), e(3, true), e(5, false)}},
		{"a newer one", Epochs{e(7, false)}, Epochs{e(1, false), e(5, false), e(7, false)}},
	} {
		if got := c.had.AsIn(log); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestEpochsInAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var all []Epoch
		for range 1 + r.IntN(6) {
			n := 1 + r.Uint64N(5)
			all = append(all, Epoch{Number: n, D: Stamp{r.Uint64N(n), r.Uint64N(4)}, Restore: r.IntN(2) == 0})
		}
		fold := func() (es Epochs) {
			for _, e := range all {
				es = es.With(e)
			}
			return es
		}
		want := fold()
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if got := fold(); !slices.Equal(got, want) {
			t.Fatalf("%v, %v", got, want)
		}
		for range 10 {
			s := Stamp{r.Uint64N(6), r.Uint64N(6)}
			once := want.Clamp(s)
			if s.Less(once) || want.Clamp(once) != once {
				t.Fatalf("%s counts as %s, that as %s, by %v", s, once, want.Clamp(once), want)
			}
			// Every epoch's D applies.
			for _, e := range want {
				if e.Number > once.Epoch && e.D.Less(once) {
					t.Fatalf("%s counts as %s in spite of %+v", s, once, e)
				}
			}
		}
	}
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"principal:alice", "grant:a%2Fb/c", "token:x%25", "tenant:default", "x", "key:\u202e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseTarget("default", Own, text)
		if err != nil {
			return
		}
		b, err := ParseTarget("default", Own, a.String())
		if err != nil || a != b || a.Key() != b.Key() {
			t.Fatalf("%q: %+v as text is %q, which is %+v, %v", text, a, a.String(), b, err)
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add(Key{1, 2, 3}.String())
	f.Add("AAAAAAAAAAAAAAAAAAAAAB")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := ParseKey(text); err == nil && k.String() != text {
			t.Fatalf("%q is %s", text, k)
		}
	})
}

func FuzzStamp(f *testing.F) {
	f.Add("1764000000000.42")
	f.Add("01.2")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseStamp(text); err == nil && s.String() != text {
			t.Fatalf("%q is %s", text, s)
		}
	})
}

func FuzzPair(f *testing.F) {
	f.Add("a", "b/c")
	f.Add("%2F", "%")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y, err := SplitPair(PairID(a, b))
		if a != "" && b != "" && (err != nil || x != a || y != b) {
			t.Fatalf("%q, %q: %q is %q, %q, %v", a, b, PairID(a, b), x, y, err)
		}
	})
}
