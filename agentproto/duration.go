package agentproto

import "time"

// Duration is a length of time in messages, written as "1h30m0s".
type Duration time.Duration
