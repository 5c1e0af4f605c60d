package wua

import "strings"

// smbiosSystem reads manufacturer, product and serial number from what
// GetSystemFirmwareTable returns for 'RSMB': a header of eight bytes, then the
// structures, each followed by its strings (DMTF DSP0134, sections 6.1 and
// 7.2). What firmware got wrong is left out.
func smbiosSystem(b []byte) (maker, product, serial string) {
	if len(b) < 8 {
		return "", "", ""
	}
	b = b[8:]
	for len(b) >= 4 {
		kind, size := b[0], int(b[1])
		if size < 4 || size > len(b) {
			break
		}
		head := b[:size]
		texts := b[size:]
		end := strings.Index(string(texts), "\x00\x00")
		if end < 0 {
			break
		}
		list := strings.Split(string(texts[:end]), "\x00")
		text := func(at int) string {
			if at >= len(head) || head[at] == 0 || int(head[at]) > len(list) {
				return ""
			}
			return strings.TrimSpace(list[head[at]-1])
		}
		if kind == 1 {
			return text(4), text(5), text(7)
		}
		b = texts[end+2:]
	}
	return "", "", ""
}
