package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"
)

// Format is what a manifest says of the file's form.
const Format = "quash-backup-1"

// Names within the archive: ACCOUNT/STREAM/data.NNNNNN, ACCOUNT/STREAM/config.json
// and at last manifest.json.
const (
	manifestName = "manifest.json"
	configName   = "config.json"
	dataPrefix   = "data."
	partSize     = 1 << 20
	maxConfig    = 1 << 20
)

// Manifest is what a backup has.
type Manifest struct {
	Format  string    `json:"format"`
	MadeAt  time.Time `json:"made_at"`
	Streams []Stream  `json:"streams"` // in their order in the file
}

// Stream is one stream of a backup.
type Stream struct {
	Account string `json:"account"`
	Name    string `json:"name"`
	LastSeq uint64 `json:"last_sequence"`
	Bytes   int64  `json:"bytes"`  // of data
	Data    string `json:"data"`   // SHA-256, hexadecimal
	Config  string `json:"config"` // alike
}

func (s Stream) path(file string) string { return s.Account + "/" + s.Name + "/" + file }

// archive writes a backup.
type archive struct {
	tar      *tar.Writer
	manifest Manifest
}

func newArchive(w io.Writer, now time.Time) *archive {
	return &archive{tar: tar.NewWriter(w), manifest: Manifest{Format: Format, MadeAt: now.UTC()}}
}

func (a *archive) file(name string, data []byte) error {
	h := &tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), ModTime: a.manifest.MadeAt, Format: tar.FormatPAX}
	if err := a.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := a.tar.Write(data)
	return err
}

// parts takes the data of one stream and writes it in parts, whose sizes a tar has
// to know beforehand.
type parts struct {
	a      *archive
	stream Stream
	digest hash.Hash
	buffer bytes.Buffer
	n      int
	failed error
}

func (a *archive) begin(account, name string) *parts {
	return &parts{a: a, stream: Stream{Account: account, Name: name}, digest: sha256.New()}
}

func (p *parts) Write(data []byte) (int, error) {
	p.digest.Write(data)
	p.stream.Bytes += int64(len(data))
	p.buffer.Write(data)
	for p.failed == nil && p.buffer.Len() >= partSize {
		p.flush(partSize)
	}
	return len(data), p.failed
}

func (p *parts) flush(n int) {
	p.n++
	p.failed = p.a.file(p.stream.path(fmt.Sprintf("%s%06d", dataPrefix, p.n)), p.buffer.Next(n))
}

// Close is called by the client library, maybe twice; end ends the stream.
func (p *parts) Close() error { return nil }

func (p *parts) end(config []byte, last uint64) error {
	if p.failed == nil && p.buffer.Len() > 0 {
		p.flush(p.buffer.Len())
	}
	if p.failed != nil {
		return p.failed
	}
	sum := sha256.Sum256(config)
	p.stream.Data, p.stream.Config, p.stream.LastSeq = hex.EncodeToString(p.digest.Sum(nil)), hex.EncodeToString(sum[:]), last
	p.a.manifest.Streams = append(p.a.manifest.Streams, p.stream)
	return p.a.file(p.stream.path(configName), config)
}

func (a *archive) close() error {
	data, err := json.MarshalIndent(a.manifest, "", "  ")
	if err != nil {
		return err
	}
	if err := a.file(manifestName, append(data, '\n')); err != nil {
		return err
	}
	return a.tar.Close()
}

var errDamaged = errors.New("the backup is damaged")

// contents are what a backup was found to have.
type contents struct {
	Manifest
	configs map[string][]byte // by ACCOUNT/STREAM
}

// check reads a backup to its end and holds it against its manifest: before
// anything is touched for it.
func check(r io.Reader) (*contents, error) {
	c := &contents{configs: map[string][]byte{}}
	digests := map[string]hash.Hash{}
	sizes := map[string]int64{}
	t := tar.NewReader(r)
	for whole := false; ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			if !whole {
				return nil, fmt.Errorf("%w: it has no manifest, so it is not whole", errDamaged)
			}
			return c, c.hold(digests, sizes)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
		stream, file := split(h.Name)
		switch {
		case whole:
			return nil, fmt.Errorf("%w: there is something after its manifest", errDamaged)
		case h.Name == manifestName:
			data, err := io.ReadAll(io.LimitReader(t, maxConfig))
			if err == nil {
				err = json.Unmarshal(data, &c.Manifest)
			}
			if err != nil || c.Format != Format {
				return nil, fmt.Errorf("%w: its manifest is not one of %s: %v", errDamaged, Format, err)
			}
			whole = true
		case file == configName:
			if c.configs[stream], err = io.ReadAll(io.LimitReader(t, maxConfig)); err != nil {
				return nil, fmt.Errorf("%w: %w", errDamaged, err)
			}
		case strings.HasPrefix(file, dataPrefix):
			if digests[stream] == nil {
				digests[stream] = sha256.New()
			}
			n, err := io.Copy(digests[stream], t)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errDamaged, err)
			}
			sizes[stream] += n
		default:
			return nil, fmt.Errorf("%w: %.100q does not belong into it", errDamaged, h.Name)
		}
	}
}

func split(name string) (stream, file string) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", name
	}
	return name[:i], name[i+1:]
}

func (c *contents) hold(digests map[string]hash.Hash, sizes map[string]int64) error {
	if len(c.Streams) != len(c.configs) {
		return fmt.Errorf("%w: %d streams, %d in its manifest", errDamaged, len(c.configs), len(c.Streams))
	}
	for _, s := range c.Streams {
		key := s.Account + "/" + s.Name
		data := sha256.New()
		if digests[key] != nil {
			data = digests[key]
		}
		config := sha256.Sum256(c.configs[key])
		if hex.EncodeToString(data.Sum(nil)) != s.Data || hex.EncodeToString(config[:]) != s.Config || sizes[key] != s.Bytes {
			return fmt.Errorf("%w: stream %s is not what its manifest says", errDamaged, key)
		}
	}
	return nil
}
