package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"

	"wuamesh/agentproto"
)

// A Failure is something that went wrong on the host, with its code in plain
// words.
type Failure = agentproto.ExplainedFailure

// maxFailures is how many failures a host remembers: those of a bad week, and
// not so many that the one that matters is hard to find.
const maxFailures = 10

// doingContact is what the agent was at when no node could be talked to.
const doingContact = "contact with the mesh"

// lastingContact is how often in a row contact has to fail before it is worth
// remembering, a minute or so: a node that restarts is none, and each of its
// hosts would otherwise have news for every node afterwards.
const lastingContact = 4

// failed remembers what went wrong, over restarts too, for whoever asks
// afterwards what happened on this host. The next check-in tells it. What an
// admin waits for, how a scan or an install ended, is told at once by other
// messages; a check-in of its own would put the nodes in order again, from which
// a wrong file has just made the agent turn away.
func (a *Agent) failed(ctx context.Context, doing string, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	f := failureOf(doing, err, time.Now())
	if cerr := a.change(func(s *state) { s.remember(f) }); cerr != nil {
		// It is in memory, and the next change that succeeds writes it.
		a.log.ErrorContext(ctx, "a failure could not be written", "err", cerr)
	}
}

// failureOf says it in a line. What the code means is left out: the node says
// it, by its own table, which may be newer.
func failureOf(doing string, err error, now time.Time) agentproto.Failure {
	f := agentproto.Failure{Doing: oneLine(doing, 256), At: now.UTC().Truncate(time.Second), HResult: codeOf(err)}
	if y := f.At.Year(); y < 1995 || y > 2100 {
		f.At = time.Time{} // of a clock that is so wrong, nobody learns when it was
	}
	text := err.Error()
	if f.HResult != 0 {
		text = strings.ReplaceAll(text, ": "+agentproto.Explain(f.HResult).Plain(), "")
	}
	if f.Text = oneLine(text, 500); f.Text == "" {
		f.Text = "It did not say why."
	}
	return f
}

// codeOf is the code that Windows gave, or that Windows has for what we found
// ourselves, so that cause and remedy are said in the same words; else 0.
func codeOf(err error) uint32 {
	expired := x509.CertificateInvalidError{}
	switch {
	case hresult(err) != 0:
		return hresult(err)
	case errors.Is(err, errNoRoom):
		return codeDiskFull
	case errors.Is(err, errBad):
		return codeIncorrectHash
	case errors.As(err, &expired) && expired.Reason == x509.Expired:
		return codeClock
	}
	return 0
}

// remember puts a failure before the others, in the place of the same one if
// that is among them.
func (s *state) remember(f agentproto.Failure) {
	i := slices.IndexFunc(s.Failures, func(g agentproto.Failure) bool { return sameFailure(f, g) })
	list := slices.Clone(s.Failures)
	if i >= 0 {
		f.Times = max(list[i].Times, 1) + 1
		list = slices.Delete(list, i, i+1)
	}
	list = slices.Insert(list, 0, f)
	s.Failures = list[:min(len(list), maxFailures)]
}

// sameFailure says whether two are the same thing twice: the same code, or
// else the same words. Words with a digit in them do not count: ports, times
// and names of files differ each time.
func sameFailure(f, g agentproto.Failure) bool {
	if f.Doing != g.Doing || f.HResult != g.HResult {
		return false
	}
	return f.HResult != 0 || slices.Equal(words(f.Text), words(g.Text))
}

func words(s string) []string {
	return slices.DeleteFunc(strings.Fields(s), func(w string) bool { return strings.ContainsFunc(w, unicode.IsDigit) })
}
