package catalogue

import "io"

// What tests reach of the parsers, without a cabinet around what they read.

// ReadGraph reads a package.xml and refuses loops of bundles.
func ReadGraph(r io.Reader) error {
	g, err := readGraph(r)
	if err == nil {
		err = g.loops()
	}
	return err
}

// ReadFragment reads a fragment of the given folder of an inner cabinet, and
// returns what it says.
func ReadFragment(dir string, r io.Reader) (*Details, error) {
	f := fragmentReader{found: map[uint32]*Details{}}
	var err error
	switch dir {
	case "c":
		err = f.core(1, r)
	case "x":
		err = f.extended(1, r)
	default:
		err = f.localized(1, "en", true, r)
	}
	return f.of(1), err
}

// Encode and Decode are how details lie in the file.
func Encode(d *Details) []byte { return d.encode(nil) }

// Decode is the other way; bad says that b is not sound.
func Decode(b []byte) (d Details, bad bool) {
	dec := decoder{b: b}
	d = dec.details()
	return d, dec.bad
}

// ErrXML is what complaints about XML wrap.
var ErrXML = errXML
