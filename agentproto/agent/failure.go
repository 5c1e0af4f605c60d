package agent

import (
	"errors"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
)

// failureNews is how long the same failure is not told anew.
const failureNews = time.Hour

// failed keeps an error among the last failures of the host. What is the same
// as one of them is counted there.
func (s *state) failed(doing string, err error, at time.Time) {
	text := err.Error()
	if e, ok := errors.AsType[*WindowsError](err); ok { // what the code means is said where it is shown
		text = strings.Replace(text, e.Error(), e.Call+": "+agentproto.Explain(e.HResult).Title(), 1)
	}
	f := agentproto.Failure{At: at.UTC().Truncate(time.Second), Doing: oneLine(doing, 32), HResult: hresult(err), Text: oneLine(text, 240), Times: 1}
	if f.Text == "" || f.Doing == "" {
		return
	}
	same := func(o agentproto.Failure) bool {
		return o.Doing == f.Doing && o.HResult == f.HResult && (o.Text == f.Text || f.HResult != 0)
	}
	if i := slices.IndexFunc(s.Failures, same); i >= 0 {
		was := s.Failures[i]
		if age := f.At.Sub(was.At); age >= 0 && age < failureNews && was.Text == f.Text {
			return
		}
		f.Times = was.Times + 1
		s.Failures = slices.Delete(s.Failures, i, i+1)
	}
	s.Failures = slices.Insert(s.Failures, 0, f)
	s.Failures = s.Failures[:min(len(s.Failures), agentproto.MaxFailures)]
}

// doingOf is what a part of the agent was at, from the name that it warns
// under.
func doingOf(part string) string {
	doing, _, _ := strings.Cut(part, " ")
	if doing == "content" {
		return "install"
	}
	return doing
}
