// Package swarm moves large immutable files between the nodes of a mesh so
// that no WAN link carries a piece twice. It is generic: it knows content by
// digest, pieces, peers and sites, and never learns what a file is for.
//
// A [Manifest] says what a file is: its size, its digests, and the digest of
// each piece. [Swarm.Fetch] brings a file: pieces come from whoever has them
// and are written, one by one, when their digest is right (partial.go). Whom
// to ask for which piece is decided by a plain state machine (scheduler.go)
// that runs in the driver (swarm.go) and, in virtual time, in a simulation of
// a hundred nodes (sim_test.go). Other nodes ask [Swarm.Handler] what this
// node has and take pieces from it (serve.go, client.go), at the rates that
// [Limits] allow (limit.go). A file that is still arriving can be read like
// one that is there: [Swarm.Open] waits for the pieces it comes to (reader.go).
//
// DESIGN.md has the reasons and what was measured.
package swarm
