package dev

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/quash-project/quash/services/demo"
	"github.com/quash-project/quash/shared/engine"
)

// Places says where things are.
type Places struct {
	URL         string `json:"url"` // of the issuer and all APIs
	DemoURL     string `json:"demo_url"`
	Data        string `json:"data"`
	Environment string `json:"environment"` // a file for a shell
	Log         string `json:"log"`
}

// announce writes dev.env, then says that all is ready.
func (i *instance) announce() error {
	if _, err := os.Stat(i.dir.file(operatorName)); err != nil {
		// It is made once; who removed it has it elsewhere, or begins anew.
		_, _ = fmt.Fprintf(i.out, "note: the first operator's API key is not in %s any more; quash dev reset begins anew\n", i.dir.file(operatorName))
	}
	if err := i.dir.write(envName, i.env()); err != nil {
		return err
	}
	if i.told != nil {
		return i.told(Places{
			URL: i.url, DemoURL: i.demoURL, Data: i.dir.path, Environment: i.dir.file(envName), Log: i.dir.file(logName),
		})
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("path of this program: %w", err)
	}
	_, err = i.out.Write(i.banner(exe))
	return err
}

// env is the text of dev.env: NAME='value', which a shell reads as it stands.
func (i *instance) env() string {
	var b strings.Builder
	for _, v := range [][2]string{
		{"QUASH_URL", i.url},
		{"QUASH_DEMO_URL", i.demoURL},
		{"QUASH_KEY_FILE", i.dir.file(operatorName)},
		{"QUASH_NATS_URL", i.nats.URL()},
		{"QUASH_NATS_CREDS", i.ids.Creds(ownGuard)},
		{"QUASH_REDIS_URL", i.redis.URL(engine.RedisReader)},
		{"QUASH_TRUST", i.trust},
	} {
		fmt.Fprintf(&b, "%s=%s\n", v[0], shellQuote(v[1]))
	}
	return b.String()
}

// forget takes dev.env away: nothing is there any more.
func (d *dataDir) forget() { _ = os.Remove(d.file(envName)) }

// shellQuote quotes for any POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// banner says where things are, and has lines to paste, which stand at the
// beginning of a line and have no comments: interactive zsh knows none.
func (i *instance) banner(exe string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `
Quash is ready: all of it in this process, for this machine only.

  APIs, issuer   %s
  demo server    %s/orders  (wants the scope %s)
  data           %s  (survives; quash dev reset empties it)
  environment    %s
  log            %s

A token's life and death, to paste in another terminal:

`, i.url, i.demoURL, demo.Scope, i.dir.path, i.dir.file(envName), i.dir.file(logName))
	b.WriteString(i.story(exe))
	b.WriteString(`
You see 200; who has applied the revocation, and when; then 401. Ctrl-C stops Quash.
`)
	return b.Bytes()
}

// story is what to paste. Secrets go through files and pipes, never arguments.
func (i *instance) story(exe string) string {
	return fmt.Sprintf(`d=%s; set -a; . "$d/dev.env"; set +a
quash() { %s "$@"; }
orders() { sed 's/^/Authorization: Bearer /' "$d/alice.token" | curl -s -o /dev/null -w '%%{http_code}\n' -H @- "$QUASH_DEMO_URL/orders"; }
quash key create --owner alice --scope %s -o json > "$d/alice.json"
sed -n 's/.*"secret": "\(.*\)".*/\1/p' "$d/alice.json" > "$d/alice.key"
quash token --key-file "$d/alice.key" > "$d/alice.token"
orders
quash revoke principal:alice --reason 'laptop stolen' --wait 5s
orders
`, shellQuote(i.dir.path), shellQuote(exe), demo.Scope)
}
