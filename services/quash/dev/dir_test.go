package dev_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/quash-project/quash/services/quash/dev"
)

func TestWhatCannotRunSaysWhy(t *testing.T) {
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg  dev.Config
		says string
	}{
		"all interfaces": {dev.Config{Listen: "0.0.0.0:0"}, "this machine only"},
		"no host":        {dev.Config{Listen: ":8420"}, "this machine only"},
		"other host":     {dev.Config{Listen: "192.0.2.1:0"}, "this machine only"},
		"demo":           {dev.Config{DemoListen: "[::]:0"}, "this machine only"},
		"no port":        {dev.Config{Listen: "localhost"}, "host:port"},
		"other things":   {dev.Config{DataDir: foreign}, "holds other things"},
		"line break":     {dev.Config{DataDir: filepath.Join(t.TempDir(), "a\nb")}, "line break"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.cfg.DataDir == "" {
				c.cfg.DataDir = filepath.Join(t.TempDir(), "q")
			}
			err := dev.Run(context.Background(), c.cfg, io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
		})
	}
}

func TestOneProcessADirectoryAndOneAddressForItsLife(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	p := start(t, dir)
	any := dev.Config{DataDir: dir, Listen: "127.0.0.1:0", DemoListen: "127.0.0.1:0"}
	if err := dev.Run(t.Context(), any, io.Discard); err == nil || !strings.Contains(err.Error(), "another quash dev") {
		t.Errorf("a second process: %v", err)
	}
	if err := dev.Reset(dir); err == nil || !strings.Contains(err.Error(), "another quash dev") {
		t.Errorf("reset while it runs: %v", err)
	}
	if env := p.env(); env["QUASH_URL"] == "" {
		t.Error("the second process took the environment file of the first")
	}
	p.end(syscall.SIGINT)

	other := any
	other.Listen = "127.0.0.1:8419"
	if err := dev.Run(t.Context(), other, io.Discard); err == nil || !strings.Contains(err.Error(), "stands in every token") {
		t.Errorf("another address: %v", err)
	}
}

func TestResetEmptiesItsOwnDirectoryOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	p := start(t, dir)
	url, key := p.env()["QUASH_URL"], readFile(t, filepath.Join(dir, "operator.key"))
	p.end(syscall.SIGINT)
	if err := dev.Reset(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left after a reset: %v, %v; want the lock alone", entries, err)
	}
	p = start(t, dir)
	if readFile(t, filepath.Join(dir, "operator.key")) == key {
		t.Error("the first operator's key survived the reset")
	}
	if p.env()["QUASH_URL"] == url {
		t.Log("the same port by chance")
	}

	foreign := t.TempDir()
	file := filepath.Join(foreign, "thesis.txt")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{foreign, t.TempDir(), filepath.Join(foreign, "none")} {
		if err := dev.Reset(dir); err == nil {
			t.Errorf("reset of %s, which is no directory of quash dev", dir)
		}
	}
	if readFile(t, file) != "x" {
		t.Error("a reset touched what is not its own")
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
