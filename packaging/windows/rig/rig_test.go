package rig_test

import "testing"

// TestMachine runs what every machine must do, and what only Windows must,
// against the double.
func TestMachine(t *testing.T) {
	newPrefix(t).goTest("./agentproto/agent/wua")
}
