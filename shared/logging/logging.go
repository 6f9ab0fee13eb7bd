// Package logging makes the one logger of a process: JSON lines on standard
// error. It is passed in everywhere; nothing is global.
package logging

import (
	"context"
	"fmt"
	"io"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Config is what an operator may choose.
type Config struct {
	Level string `koanf:"level"` // debug, info, warn or error; empty: info
}

// Validate says whether the level is one.
func (c Config) Validate() error {
	_, err := c.level()
	return err
}

func (c Config) level() (zapcore.Level, error) {
	if c.Level == "" {
		return zapcore.InfoLevel, nil
	}
	l, err := zapcore.ParseLevel(c.Level)
	if err != nil {
		return l, fmt.Errorf("log.level %q: use debug, info, warn or error", c.Level)
	}
	return l, nil
}

// New returns a logger that writes to w. An invalid level counts as info:
// Validate has refused it before.
func New(c Config, w io.Writer) *zap.Logger {
	level, err := c.level()
	if err != nil {
		level = zapcore.InfoLevel
	}
	e := zap.NewProductionEncoderConfig()
	e.TimeKey, e.EncodeTime = "time", zapcore.RFC3339NanoTimeEncoder
	e.EncodeDuration = zapcore.StringDurationEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(e), zapcore.Lock(zapcore.AddSync(w)), level))
}

// Redis takes what the Redis client says of its connections, which by default
// goes to standard error as it is. It is global in that client: for a main.
type Redis struct{ Log *zap.Logger }

// Printf writes a line for whoever looks for the cause; what follows from it is
// said by the package that asked.
func (r Redis) Printf(_ context.Context, format string, args ...any) {
	r.Log.Debug(fmt.Sprintf(format, args...))
}
