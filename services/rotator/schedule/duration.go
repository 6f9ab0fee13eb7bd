package schedule

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written as 90d, 36h0m0s or 1m30s: a day is 24 hours,
// whatever the clock on the wall does, and a week is seven of them.
type Duration time.Duration

const (
	day  = 24 * time.Hour
	week = 7 * day
	// maxDuration is far above all that is allowed anywhere, and far below an overflow.
	maxDuration = 10 * 366 * day
)

// ParseDuration reads a duration as Go writes it, with days and weeks before: 90d, 1w,
// 1d12h, 30m.
func ParseDuration(text string) (Duration, error) {
	wrong := fmt.Errorf("%.40q: want a duration as in 90d, 1w, 36h or 1d12h", text)
	rest, sum := text, time.Duration(0)
	for _, unit := range []struct {
		letter string
		length time.Duration
	}{{"w", week}, {"d", day}} {
		digits, after, found := strings.Cut(rest, unit.letter)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || digits[0] == '+' {
			return 0, wrong
		}
		if n > uint64(maxDuration/unit.length) { // more would overflow
			return 0, fmt.Errorf("%.40q: want %s at most", text, Duration(maxDuration))
		}
		sum += time.Duration(n) * unit.length
		rest = after
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 || rest[0] == '+' || rest[0] == '-' {
			return 0, wrong
		}
		sum += d
	} else if text == "" {
		return 0, wrong
	}
	if sum < 0 || sum > maxDuration {
		return 0, fmt.Errorf("%.40q: want %s at most", text, Duration(maxDuration))
	}
	return Duration(sum), nil
}

// String writes whole days as such, anything else as Go does.
func (d Duration) String() string {
	if d != 0 && time.Duration(d)%day == 0 {
		return strconv.FormatInt(int64(time.Duration(d)/day), 10) + "d"
	}
	return time.Duration(d).String()
}

// MarshalJSON writes the text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads the text.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	v, err := ParseDuration(text)
	*d = v
	return err
}
