// Package rig runs the Windows agent for real where there is no Windows: under
// Debian's wine64, against a double of the Windows Update Agent (double/) that
// registers the real class names and knows the updates a test writes for it.
//
// Its tests build the double and the shim with mingw, make a Wine prefix once
// and keep it in the user's cache, clone it for every test, and run there what
// `go test` built for Windows. What only real Windows can show is listed in
// packaging/windows/README.md.
//
//	go test -v ./packaging/windows/rig
package rig
