package agentproto_test

import (
	"regexp"
	"strings"
	"testing"

	"wuamesh/agentproto"
)

// TestMeanings holds every sentence to be one that people can read.
func TestMeanings(t *testing.T) {
	classes := map[agentproto.Class]int{}
	for code, m := range agentproto.Meanings() {
		classes[m.Class]++
		if !regexp.MustCompile(`^[A-Z].{3,}\.$`).MatchString(m.Cause) {
			t.Errorf("%s: the cause %q is no sentence", m.Code, m.Cause)
		}
		if m.Remedy != "" && !regexp.MustCompile(`^[A-Z].{8,}\.$`).MatchString(m.Remedy) {
			t.Errorf("%s: the remedy %q is no sentence", m.Code, m.Remedy)
		}
		if failed := int32(code) < 0; failed != (m.Next != "") {
			t.Errorf("%s: what next is %q", m.Code, m.Next)
		}
		if m.Remedy == "" && m.Class != agentproto.ClassRetry && m.Class != agentproto.ClassContent {
			t.Errorf("%s: class %s, and nothing to do", m.Code, m.Class)
		}
		if s := m.Sentence(); strings.Contains(s, "  ") || strings.TrimSpace(s) != s {
			t.Errorf("%s: %q", m.Code, s)
		}
	}
	for _, c := range []agentproto.Class{
		agentproto.ClassRetry, agentproto.ClassRestart, agentproto.ClassAdmin, agentproto.ClassContent, agentproto.ClassRepair, agentproto.ClassPermanent, agentproto.ClassTold,
	} {
		if classes[c] == 0 {
			t.Errorf("no code is of class %s", c)
		}
	}
}

func TestExplain(t *testing.T) {
	if m := agentproto.Explain(0x8024ABCD); m.Name != "0x8024ABCD" || m.Title() != m.Name || m.Cause == "" || m.Next == "" {
		t.Errorf("unknown code: %+v", m)
	}
	m := agentproto.Explain(0x800F0922)
	if m.Title() != "0x800F0922 (CBS_E_INSTALLERS_FAILED)" || !strings.HasSuffix(m.Sentence(), agentproto.ClassAdmin.Next()) {
		t.Errorf("%+v", m)
	}
}
