package agentproto

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// A TooLargeError is a message that is longer than its kind may be.
type TooLargeError struct{ Limit int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the message is larger than %d kB", e.Limit>>10)
}

// A Message can say what is wrong with it.
type Message interface{ Validate() error }

// Decode reads one JSON value of at most limit bytes and validates it.
// Unknown fields are skipped: a newer agent may send more than we know.
func Decode(r io.Reader, limit int64, m Message) error {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return fmt.Errorf("read the message: %w", err)
	}
	if int64(len(b)) > limit {
		return &TooLargeError{limit}
	}
	if err := json.Unmarshal(b, m); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return &FieldError{wrong.Field, fmt.Sprintf("a %s where a %s belongs", wrong.Value, wrong.Type)}
		}
		return &FieldError{"body", "not the JSON of this message: " + strings.TrimPrefix(err.Error(), "json: ")}
	}
	return m.Validate()
}

// DecodeRequest is Decode for a request's body, which may be compressed with
// gzip; limit holds before and after.
func DecodeRequest(r *http.Request, limit int64, m Message) error {
	if r.ContentLength > limit {
		return &TooLargeError{limit}
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(io.LimitReader(r.Body, limit))
		if err != nil {
			return &FieldError{"body", "not compressed with gzip, though its header says so"}
		}
		body = z
	}
	return Decode(body, limit, m)
}

// HashStatuses is the same for the same statuses in any order: SHA-256,
// hexadecimal.
func HashStatuses(list []Status) string {
	lines := make([]string, len(list))
	for i, s := range list {
		b, _ := json.Marshal(s) // of plain fields: cannot fail
		lines[i] = string(b)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:])
}

// Problem is an error a node explains (RFC 9457, problem details).
type Problem struct {
	Type   string `json:"type,omitempty"`
	Title  string `json:"title"` // what happened, one sentence
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Hint   string `json:"hint,omitempty"`  // what to do next
	Field  string `json:"field,omitempty"` // of the message it is about
	Code   string `json:"code,omitempty"`  // to quote
	// Nodes are base URLs of other nodes, from one that serves hosts no more.
	Nodes []string `json:"nodes,omitempty"`
}

func (p *Problem) Error() string {
	if p.Hint != "" {
		return p.Title + " " + p.Hint
	}
	return p.Title
}

// WriteProblem answers with p.
func WriteProblem(w http.ResponseWriter, p Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// ReadProblem reads the problem of an answer that is none of the good ones.
func ReadProblem(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	p := &Problem{}
	if err == nil && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") && json.Unmarshal(b, p) == nil && p.Title != "" {
		p.Status = resp.StatusCode
		return p
	}
	return &Problem{Title: "The node answered " + resp.Status + ".", Status: resp.StatusCode}
}

// An Event is one of a node's stream of events.
type Event struct {
	Name string // "command", "policy"
	Data []byte // JSON; empty for none
}

// WriteEvent writes one event as the stream has it (HTML standard, section
// 9.2, server-sent events).
func WriteEvent(w io.Writer, name string, data any) error {
	b, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", name, err)
	}
	_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, b)
	return err
}

// compress returns b compressed with gzip.
func compress(b []byte) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	z.Write(b) // to memory: cannot fail
	z.Close()
	return buf.Bytes()
}
