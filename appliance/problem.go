package appliance

import (
	"errors"
	"fmt"

	"wuamesh/replicate"
)

// A Problem is an error the admin can act on. Any other error that reaches a
// page or the API is ours: the page apologises and the log has it.
type Problem struct {
	Kind  Kind
	Msg   string // what happened, with names and numbers; one sentence
	Hint  string // what to do next; may be empty
	Field string // the field of a form or message it is about; may be empty
	Code  string // WM-…, to quote; may be empty
	Err   error  // the cause, for the log; may be nil
}

func (p *Problem) Error() string {
	if p.Err != nil {
		return p.Msg + ": " + p.Err.Error()
	}
	return p.Msg
}

func (p *Problem) Unwrap() error { return p.Err }

// AsProblem finds what the admin can act on in an error. A full disk under the
// records is that wherever it is met.
func AsProblem(err error) (*Problem, bool) {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p, true
	}
	if e, ok := errors.AsType[*replicate.FullError](err); ok {
		return &Problem{
			Kind: Full, Msg: fmt.Sprintf("The disk with the records of this node is full: %s are free, %s have to be.", bytesText(e.Free), bytesText(e.Need)),
			Hint: "Nothing was changed. Make room on the disk of " + e.Dir + "; it goes on by itself then.", Err: err,
		}, true
	}
	return nil, false
}

// Kind is what sort of problem it is; the pages and the API turn it into a
// status code with [Kind.Status].
type Kind string

// The kinds.
const (
	Invalid     Kind = "invalid"     // 400, or 422 on a form
	Denied      Kind = "denied"      // 403
	NoLogin     Kind = "no login"    // 401
	NotFound    Kind = "not found"   // 404
	Conflict    Kind = "conflict"    // 409
	TooLarge    Kind = "too large"   // 413
	TooMany     Kind = "too many"    // 429
	Full        Kind = "full"        // 507
	Unavailable Kind = "unavailable" // 503
)

var statusOf = map[Kind]int{
	Invalid: 400, NoLogin: 401, Denied: 403, NotFound: 404, Conflict: 409,
	TooLarge: 413, TooMany: 429, Full: 507, Unavailable: 503,
}

// Status is the HTTP status code of the kind (RFC 9110, section 15).
func (k Kind) Status() int { return statusOf[k] }

func invalid(field, format string, args ...any) *Problem {
	return &Problem{Kind: Invalid, Field: field, Msg: fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) *Problem {
	return &Problem{Kind: NotFound, Msg: fmt.Sprintf(format, args...)}
}
