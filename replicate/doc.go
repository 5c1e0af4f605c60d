// Package replicate keeps records the same on every node of a mesh. It is
// generic: it knows keys, versions and logs, and never learns what a record
// means.
//
// A record is a value under a key "kind/id[/part]" and the [Version] that
// wrote it. [DB.Update] makes one change set: all of it or nothing, durable
// when it returns, stamped by a hybrid logical clock and numbered in the log of
// this node's writer. Two nodes become equal by handing each other the change
// sets the other lacks ([DB.Apply]); of two writes of one key the
// newer version wins, the same one on every node. Records of this node alone
// ([Tx.Local]) share the transactions and are never handed on.
//
// A [Mesh] does the handing over between nodes: it keeps connections to some
// of them, pushes change sets the moment they are committed, syncs what was
// missed, runs memberlist to know who is alive, and carries requests between
// peers.
//
// DESIGN.md has the layout on disk and the reasons.
package replicate
