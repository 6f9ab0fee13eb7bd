// Package config reads a service's configuration: a YAML file, then the
// environment, then flags, each over the one before. It is strict: an unknown
// key, a key of another case or a value of another type is an error, and all
// errors of the validation come at once. Nothing is corrected.
//
// A field with the tag koanf:"url" in a struct with the tag koanf:"nats" is the
// key nats.url in the file, QUASH_ISSUER_NATS_URL in the environment (of the
// service "issuer") and --nats-url on the command line. Secrets are paths of
// files, never values.
package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
)

// Validator is a configuration that can be wrong in ways that its types allow.
// Its error joins all faults, each with key and value.
type Validator interface{ Validate() error }

// Source is where a configuration comes from.
type Source struct {
	Service string    // "issuer": for QUASH_ISSUER_… and the usage text
	Args    []string  // flags, without the program's name
	Environ []string  // os.Environ()
	Usage   io.Writer // where --help writes; nil: standard error
}

// Load reads a T. The flag --config names the file; without it there is none.
func Load[T any](s Source) (T, error) {
	var cfg T
	keys := keysOf(reflect.TypeFor[T](), "")
	k := koanf.New(".")
	path, given, err := flags(s, keys)
	if err != nil {
		return cfg, err
	}
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return cfg, fmt.Errorf("configuration file %s: %w", path, err)
		}
	}
	if err := loadEnv(k, s, keys); err != nil {
		return cfg, err
	}
	for key, value := range given {
		if err := k.Set(key, value); err != nil {
			return cfg, fmt.Errorf("flag --%s: %w", flagName(key), err)
		}
	}
	if err := decode(k.Raw(), &cfg); err != nil {
		return cfg, fmt.Errorf("configuration: %w", err)
	}
	if v, ok := any(&cfg).(Validator); ok {
		if err := v.Validate(); err != nil {
			return cfg, fmt.Errorf("configuration: %w", err)
		}
	}
	return cfg, nil
}

// Parse decodes a YAML text as Load does a file, for tests of the files that are
// shipped.
func Parse[T any](text []byte) (T, error) {
	var cfg T
	raw, err := yaml.Parser().Unmarshal(text)
	if err != nil {
		return cfg, err
	}
	return cfg, decode(raw, &cfg)
}

func decode(raw map[string]any, into any) error {
	d, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result:           into,
		TagName:          "koanf",
		ErrorUnused:      true,
		WeaklyTypedInput: true, // the environment and flags have text only
		MatchName:        func(key, field string) bool { return key == field },
		DecodeHook: mapstructure.ComposeDecodeHookFunc(
			mapstructure.StringToTimeDurationHookFunc(),
			mapstructure.TextUnmarshallerHookFunc(),
			mapstructure.StringToSliceHookFunc(","),
		),
	})
	if err != nil {
		return err
	}
	return d.Decode(raw)
}

// keysOf returns the paths of all leaves of a configuration.
func keysOf(t reflect.Type, prefix string) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("koanf")
		if name == "" || name == "-" {
			continue
		}
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(f.Type, prefix+name+".")...)
			continue
		}
		keys = append(keys, prefix+name)
	}
	return keys
}

func flagName(key string) string { return strings.NewReplacer(".", "-", "_", "-").Replace(key) }

func flags(s Source, keys []string) (path string, given map[string]string, err error) {
	fs := flag.NewFlagSet("quash-"+s.Service, flag.ContinueOnError)
	if s.Usage != nil {
		fs.SetOutput(s.Usage)
	}
	given = map[string]string{}
	fs.StringVar(&path, "config", "", "YAML `file`")
	for _, key := range keys {
		fs.Func(flagName(key), envName(s.Service, key), func(v string) error {
			given[key] = v
			return nil
		})
	}
	if err := fs.Parse(s.Args); err != nil {
		return "", nil, err
	}
	if fs.NArg() > 0 {
		return "", nil, fmt.Errorf("unknown argument %q", fs.Arg(0))
	}
	return path, given, nil
}

func envPrefix(service string) string { return "QUASH_" + strings.ToUpper(service) + "_" }

func envName(service, key string) string {
	return envPrefix(service) + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

func loadEnv(k *koanf.Koanf, s Source, keys []string) error {
	byName := map[string]string{}
	for _, key := range keys {
		byName[envName(s.Service, key)] = key
	}
	var unknown []error
	err := k.Load(env.Provider(".", env.Opt{
		Prefix:      envPrefix(s.Service),
		EnvironFunc: func() []string { return s.Environ },
		TransformFunc: func(name, value string) (string, any) {
			key, ok := byName[name]
			if !ok {
				unknown = append(unknown, fmt.Errorf("environment variable %s is unknown; there are %s",
					name, strings.Join(slices.Sorted(maps.Keys(byName)), ", ")))
				return "", nil
			}
			return key, value
		},
	}), nil)
	return errors.Join(append(unknown, err)...)
}

// Environ is os.Environ, named here so that a main has one import less.
func Environ() []string { return os.Environ() }
