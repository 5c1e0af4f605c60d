package agentproto

import (
	"fmt"
	"time"
)

// Duration is a length of time in messages, written as "1h30m0s": not
// negative, at most ten years.
type Duration time.Duration

const maxDuration = Duration(10 * 365 * 24 * time.Hour)

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return err
	}
	if v < 0 || Duration(v) > maxDuration {
		return fmt.Errorf("duration %s is not between 0 and ten years", v)
	}
	*d = Duration(v)
	return nil
}
