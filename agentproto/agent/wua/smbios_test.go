package wua

import "testing"

func FuzzSMBIOS(f *testing.F) {
	table := append(make([]byte, 8), 1, 27, 0, 0, 1, 2, 0, 3)
	table = append(table, make([]byte, 19)...)
	table = append(table, "Dell Inc.\x00OptiPlex 7010 \x008XK2VN3\x00\x00"...)
	if maker, product, serial := smbiosSystem(table); maker != "Dell Inc." || product != "OptiPlex 7010" || serial != "8XK2VN3" {
		f.Errorf("%q %q %q", maker, product, serial)
	}
	f.Add(table)
	f.Add(append(append(make([]byte, 8), 0, 5, 0, 0, 9, 'x', 0, 0), table[8:]...))
	f.Fuzz(func(t *testing.T, b []byte) { smbiosSystem(b) })
}
