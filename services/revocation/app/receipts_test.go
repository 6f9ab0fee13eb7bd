package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/httpapi"
	"github.com/quash-project/quash/services/revocation/proof"
	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/rights"
	"github.com/quash-project/quash/shared/seal"
)

// fetch asks a replica for something, with a token if there is one.
func (w *world) fetch(r *replica, token, path, accept string) (*http.Response, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, r.url+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(data)
}

func (w *world) receipt(r *replica, id, wait string) (x httpapi.Receipt) {
	w.t.Helper()
	resp, text := w.fetch(r, w.token(rights.AuditRead), "/v1/receipts/"+id+"?wait="+wait, "")
	if resp.StatusCode != http.StatusOK {
		w.t.Fatalf("receipt %s: %d %s", id, resp.StatusCode, text)
	}
	if err := json.Unmarshal([]byte(text), &x); err != nil {
		w.t.Fatal(err)
	}
	return x
}

func (w *world) listed(r *replica, query string) (list struct {
	Items []httpapi.ReceiptSummary
	Next  string `json:"next_page"`
}, err error,
) {
	resp, text := w.fetch(r, w.token(rights.AuditRead), "/v1/receipts"+query, "")
	if resp.StatusCode != http.StatusOK {
		return list, fmt.Errorf("list: %d %s", resp.StatusCode, text)
	}
	return list, json.Unmarshal([]byte(text), &list)
}

func (w *world) keySet(r *replica) (set proof.KeySet) {
	w.t.Helper()
	_, text := w.fetch(r, "", "/v1/receipts/keys", "")
	if err := json.Unmarshal([]byte(text), &set); err != nil || len(set.Keys) == 0 {
		w.t.Fatalf("key set %s: %v", text, err)
	}
	return set
}

// bucket is that of the receipts, read by somebody with every right.
func (w *world) bucket() (jetstream.JetStream, jetstream.KeyValue) {
	w.t.Helper()
	js, err := jetstream.New(w.nats.Admin(w.t, identity.Log))
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := js.KeyValue(w.t.Context(), receipts.Bucket)
	if err != nil {
		w.t.Fatal(err)
	}
	return js, b
}

// op commits a hold or a release.
func (w *world) op(r *replica, op, target string) httpapi.Entry {
	w.t.Helper()
	body := fmt.Sprintf(`{"op":%q,"targets":[%q],"reason":"a <b>test</b>","code":"keyCompromise"}`, op, target)
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, r.url+"/v1/revocations", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+w.token(rights.Revoke))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	var e httpapi.Entry
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || resp.StatusCode != http.StatusCreated {
		w.t.Fatalf("%s %s: %d, %v", op, target, resp.StatusCode, err)
	}
	return e
}

// TestReceiptsAreSignedAndNoGuardTakesThem: of a revocation, a hold and a release, in
// every form; kept for 400 days at least.
func TestReceiptsAreSignedAndNoGuardTakesThem(t *testing.T) {
	w := newWorld(t)
	r := w.start("one")
	w.publish()
	w.ready(r)
	set := w.keySet(r)
	var ids []string
	for _, op := range []string{"revoke", "hold", "release"} {
		e := w.op(r, op, "principal:alice")
		ids = append([]string{e.ID}, ids...)
		x := w.receipt(r, e.ID, "10s")
		if !x.Complete || len(x.Confirmed) != 1 || x.Op != op || x.Sequence != e.Sequence || x.Actor != "resp" || x.Code != "keyCompromise" {
			t.Errorf("%s: %+v", op, x)
		}
		s, _, err := receipts.Verify(x.JWS, set)
		if err != nil || s.Installation != issuer || fmt.Sprint(s.Document.Targets, s.Complete, s.Op, s.ID) != fmt.Sprint(x.Targets, true, op, e.ID) {
			t.Errorf("%s: signed %+v, %v", op, s, err)
		}
	}
	id, token := ids[0], w.token(rights.AuditRead)
	for path, accept := range map[string]string{"?format=jws": "text/html", "": "application/jose"} {
		resp, text := w.fetch(r, token, "/v1/receipts/"+id+path, accept)
		if _, _, err := receipts.Verify(text, set); err != nil || resp.Header.Get("Content-Type") != "application/jose" {
			t.Errorf("%s, %s: %v: %s", path, accept, err, text)
		}
	}
	resp, page := w.fetch(r, token, "/v1/receipts/"+id, "text/html, */*;q=0.1")
	if !strings.HasPrefix(page, "<!doctype html>") || strings.Contains(page, "<b>test") || resp.Header.Get("Content-Security-Policy") != receipts.PagePolicy {
		t.Errorf("page: %v, policy %q", strings.Contains(page, "<b>test"), resp.Header.Get("Content-Security-Policy"))
	}
	enginetest.Eventually(t, "all are listed, newest first, over pages", func() error {
		first, err := w.listed(r, "?limit=2")
		if err != nil || first.Next == "" {
			return fmt.Errorf("first page %+v, %w", first, err)
		}
		second, err := w.listed(r, "?limit=2&page="+first.Next)
		var got []string
		for _, x := range slices.Concat(first.Items, second.Items) {
			got = append(got, x.ID)
		}
		if err != nil || !slices.Equal(got, ids) {
			return fmt.Errorf("listed %q, want %q, %w", got, ids, err)
		}
		return nil
	})
	w.refused(r, id, set)
	js, _ := w.bucket()
	st, err := js.Stream(t.Context(), "KV_"+receipts.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	m, err := st.GetLastMsgForSubject(t.Context(), "$KV.receipts.r."+id)
	if err != nil {
		t.Fatal(err)
	}
	if ttl, err := strconv.ParseInt(m.Header.Get(jetstream.MsgTTLHeader), 10, 64); err != nil || time.Duration(ttl)*time.Second < receipts.Life-time.Minute {
		t.Errorf("a receipt is kept for %d s, %v: want 400 days at least", ttl, err)
	}
}

// refused shows receipts, and tokens signed by their key, to the guard of our own API.
func (w *world) refused(r *replica, id string, set proof.KeySet) {
	w.t.Helper()
	_, b := w.bucket()
	kek, err := seal.LoadKEK(w.kek)
	if err != nil {
		w.t.Fatal(err)
	}
	keys := proof.New(proof.Config{KEK: kek, Bucket: func(context.Context) (jetstream.KeyValue, error) { return b, nil }})
	now := time.Now()
	claims := fmt.Sprintf(`{"iss":%q,"sub":"resp","aud":%q,"exp":%d,"iat":%d,"jti":"x","client_id":"c","scope":%q,"tenant":"default","rseq":"0.0","via":[]}`,
		issuer, issuer, now.Add(time.Minute).Unix(), now.Unix(), rights.AuditRead)
	like, err := keys.Sign(w.t.Context(), "at+jwt", []byte(claims))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := proof.Verify(like, "at+jwt", set); err != nil {
		w.t.Fatalf("it is not signed by the proof key: %v", err)
	}
	if _, _, err := receipts.Verify(like, set); err == nil {
		w.t.Error("a token counts as a receipt")
	}
	for name, token := range map[string]string{"a receipt": w.receipt(r, id, "0s").JWS, "a token by its key": like} {
		if resp, _ := w.fetch(r, token, "/v1/receipts", ""); resp.StatusCode != http.StatusUnauthorized {
			w.t.Errorf("%s opens the API: %d", name, resp.StatusCode)
		}
	}
	for path, want := range map[string]int{
		"/v1/receipts/" + strings.Repeat("A", 43): 404, "/v1/receipts/x": 404, "/v1/receipts/" + id[:42] + "%0a": 404, "/v1/receipts/" + id + "?wait=x": 422, "/v1/receipts/" + id + "?format=pdf": 422,
	} {
		if resp, text := w.fetch(r, w.token(rights.AuditRead), path, ""); resp.StatusCode != want {
			w.t.Errorf("%s: %d %s, want %d", path, resp.StatusCode, text, want)
		}
	}
	if resp, _ := w.fetch(r, w.token(rights.FleetRead), "/v1/receipts", ""); resp.StatusCode != http.StatusForbidden {
		w.t.Errorf("without the right: %d", resp.StatusCode)
	}
}

// TestAReceiptOutlivesACrash: the service ends between the commit and its receipt, and
// the next one makes it up from the log, unasked.
func TestAReceiptOutlivesACrash(t *testing.T) {
	w := newWorld(t)
	one := w.start("one")
	w.publish()
	w.ready(one)
	w.keySet(one) // the bucket is there
	before := w.revoke(one, "principal:first")
	w.receipt(one, before.ID, "5s")
	e := w.revoke(one, "principal:alice")
	one.end()
	_, b := w.bucket()
	if _, err := b.Get(t.Context(), "r."+e.ID); err == nil {
		t.Fatal("it was written before the end: the test shows nothing")
	}
	two := w.start("two")
	w.ready(two)
	enginetest.Eventually(t, "both are listed", func() error {
		list, err := w.listed(two, "")
		if err == nil && (len(list.Items) != 2 || list.Items[0].ID != e.ID || list.Items[1].ID != before.ID) {
			err = fmt.Errorf("listed %+v", list.Items)
		}
		return err
	})
	if x := w.receipt(two, e.ID, "10s"); !x.Complete || x.Sequence != e.Sequence || !slices.Equal(x.Targets, []string{"principal:alice"}) {
		t.Errorf("%+v", x)
	}
}

// TestTwoReplicasAnswerAtOnce: both make the receipt, and one stands; what one of them
// said is never less in what another says later; a complete one is final.
func TestTwoReplicasAnswerAtOnce(t *testing.T) {
	w := newWorld(t)
	rs := []*replica{w.start("one"), w.start("two")}
	w.publish()
	w.ready(rs...)
	w.keySet(rs[0])
	for n := range 5 {
		e := w.revoke(rs[n%2], fmt.Sprint("principal:p", n))
		var (
			all  sync.WaitGroup
			mu   sync.Mutex
			told []httpapi.Receipt
		)
		for i := range 8 {
			all.Go(func() {
				x := w.receipt(rs[i%2], e.ID, []string{"0s", "10s"}[i/4])
				mu.Lock()
				defer mu.Unlock()
				told = append(told, x)
			})
		}
		all.Wait()
		last := w.receipt(rs[0], e.ID, "10s")
		if !last.Complete {
			t.Fatalf("not complete: %+v", last)
		}
		for _, x := range told {
			for _, c := range x.Confirmed {
				if !slices.ContainsFunc(last.Confirmed, func(l receipts.ToldConfirmed) bool { return l.Instance == c.Instance }) {
					t.Errorf("%s was told to have confirmed, and is not named any more", c.Instance)
				}
			}
			if x.Complete && fmt.Sprint(x.Document.Confirmed, x.JudgedAt) != fmt.Sprint(last.Document.Confirmed, last.JudgedAt) {
				t.Errorf("complete was not final: %+v, then %+v", x.Document, last.Document)
			}
		}
	}
}
