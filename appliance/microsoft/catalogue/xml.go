package catalogue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// errXML is what every complaint about XML wraps.
var errXML = errors.New("XML that makes no sense")

func badXML(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errXML}, args...)...)
}

// Bounds of what a scanner holds. Microsoft's longest text is a description of
// a few kB, its longest tag an installer's command line.
const (
	maxToken      = 256 << 10
	maxAttributes = 64
)

// An event is what a scanner stands at.
type event int

const (
	opened event = iota // name and attributes; an empty element closes next
	closed              // name
	text                // value
)

// A scanner reads XML as Microsoft writes it, token by token: documents, and
// fragments of several roots with prefixes nobody declares. It holds one token
// and allocates for none; encoding/xml takes 15 times as long. Document types
// are refused, and with them every entity but XML's own.
type scanner struct {
	r     io.Reader
	buf   []byte
	at    int   // of the next byte not yet scanned
	err   error // of r; io.EOF at the end
	empty bool  // the element that was opened is empty: it closes next

	name  []byte // without prefix; good until the next call of next
	value []byte // text, entities resolved
	attrs []attr
	spare []byte // for text with entities
}

type attr struct{ name, value []byte }

func (s *scanner) reset(r io.Reader) {
	if s.buf == nil {
		s.buf, s.attrs = make([]byte, 0, 16<<10), make([]attr, 0, maxAttributes)
	}
	*s = scanner{r: r, buf: s.buf[:0], attrs: s.attrs[:0], spare: s.spare[:0]}
}

// more reads on, keeping what is at and behind s.at. It fails at the end, and
// when one token is longer than any should be.
func (s *scanner) more() error {
	if s.err != nil {
		return s.err
	}
	if s.at > 0 {
		s.buf = s.buf[:copy(s.buf, s.buf[s.at:])]
		s.at = 0
	}
	if len(s.buf) == cap(s.buf) {
		if len(s.buf) >= maxToken {
			s.err = badXML("a tag or text of more than %d bytes", maxToken)
			return s.err
		}
		s.buf = append(make([]byte, 0, min(2*cap(s.buf), maxToken)), s.buf...)
	}
	for {
		n, err := s.r.Read(s.buf[len(s.buf):cap(s.buf)])
		s.buf = s.buf[:len(s.buf)+n]
		if err != nil {
			s.err = err
		}
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// find returns how far behind s.at+from b is, reading on for it.
func (s *scanner) find(from int, b byte) (int, error) {
	for {
		if i := bytes.IndexByte(s.buf[min(s.at+from, len(s.buf)):], b); i >= 0 {
			return from + i, nil
		}
		from = max(from, len(s.buf)-s.at)
		if err := s.more(); err != nil {
			return 0, unexpectedEnd(err)
		}
	}
}

func unexpectedEnd(err error) error {
	if err == io.EOF {
		return badXML("it ends within a tag")
	}
	return err
}

// next goes on to the next event; io.EOF ends. White space between tags is
// left out.
func (s *scanner) next() (event, error) {
	if s.empty {
		s.empty = false
		return closed, nil
	}
	for {
		if s.at == len(s.buf) {
			if err := s.more(); err != nil {
				return 0, err
			}
		}
		if s.buf[s.at] != '<' {
			if some, err := s.chars(); some || err != nil {
				return text, err
			}
			continue
		}
		if s.at+1 == len(s.buf) {
			if err := s.more(); err != nil {
				return 0, unexpectedEnd(err)
			}
		}
		switch s.buf[s.at+1] {
		case '/':
			return closed, s.end()
		case '?':
			if err := s.skip("?>"); err != nil {
				return 0, err
			}
		case '!':
			some, err := s.markup()
			if some || err != nil {
				return text, err
			}
		default:
			return opened, s.start()
		}
	}
}

// chars reads text up to a tag or the end; some says that it is not all white
// space.
func (s *scanner) chars() (some bool, err error) {
	n := 0
	for {
		if i := bytes.IndexByte(s.buf[s.at+n:], '<'); i >= 0 {
			n += i
			break
		}
		n = len(s.buf) - s.at
		if err := s.more(); err == io.EOF {
			break
		} else if err != nil {
			return false, err
		}
	}
	raw := s.buf[s.at : s.at+n]
	s.at += n
	if len(bytes.TrimLeft(raw, " \t\r\n")) == 0 {
		return false, nil
	}
	s.value, err = s.resolve(raw)
	return true, err
}

// end reads a closing tag.
func (s *scanner) end() error {
	n, err := s.find(2, '>')
	if err != nil {
		return err
	}
	s.name = local(bytes.TrimRight(s.buf[s.at+2:s.at+n], " \t\r\n"))
	s.at += n + 1
	return nil
}

// skip goes on behind the next end.
func (s *scanner) skip(end string) error {
	for {
		if i := bytes.Index(s.buf[s.at:], []byte(end)); i >= 0 {
			s.at += i + len(end)
			return nil
		}
		s.at = max(s.at, len(s.buf)-len(end)+1)
		if err := s.more(); err != nil {
			return unexpectedEnd(err)
		}
	}
}

// markup reads a comment or CDATA, whose text it returns.
func (s *scanner) markup() (some bool, err error) {
	const comment, cdata = "<!--", "<![CDATA["
	for len(s.buf)-s.at < len(cdata) {
		if err := s.more(); err == io.EOF {
			break
		} else if err != nil {
			return false, err
		}
	}
	switch rest := s.buf[s.at:]; {
	case bytes.HasPrefix(rest, []byte(comment)):
		s.at += len(comment)
		return false, s.skip("-->")
	case bytes.HasPrefix(rest, []byte(cdata)):
		for n := len(cdata); ; {
			if n, err = s.find(n, '>'); err != nil {
				return false, err
			}
			if raw, done := bytes.CutSuffix(s.buf[s.at:s.at+n], []byte("]]")); done && len(raw) >= len(cdata) {
				s.value = raw[len(cdata):]
				s.at += n + 1
				return true, nil
			}
			n++
		}
	}
	return false, badXML("a document type, or something else that is not read")
}

// start reads an opening tag with its attributes.
func (s *scanner) start() error {
	for {
		end, err := s.tag()
		if err == nil {
			s.at += end
			return nil
		}
		if err != errShort {
			return err
		}
		if err := s.more(); err != nil {
			return unexpectedEnd(err)
		}
	}
}

// errShort asks for more of a tag.
var errShort = errors.New("the tag goes on")

// tag takes the tag at s.at apart and returns how long it is.
func (s *scanner) tag() (int, error) {
	b := s.buf[s.at:]
	n := nameEnd(b, 1)
	if n == len(b) {
		return 0, errShort
	}
	if n == 1 {
		return 0, badXML("a tag without a name")
	}
	s.name, s.attrs = local(b[1:n]), s.attrs[:0]
	for {
		for n < len(b) && space(b[n]) {
			n++
		}
		if n >= len(b) || b[n] == '/' && n+1 == len(b) {
			return 0, errShort
		}
		switch {
		case b[n] == '>':
			return n + 1, nil
		case b[n] == '/' && b[n+1] == '>':
			s.empty = true
			return n + 2, nil
		}
		var err error
		if n, err = s.attribute(b, n); err != nil {
			return 0, err
		}
	}
}

// attribute reads the one at b[n:] and returns where it ends.
func (s *scanner) attribute(b []byte, n int) (int, error) {
	from := n
	n = nameEnd(b, n)
	name := local(b[from:n])
	for n < len(b) && space(b[n]) {
		n++
	}
	if n >= len(b) {
		return 0, errShort
	}
	if b[n] != '=' || len(name) == 0 {
		return 0, badXML("an attribute of %.40q without a value", s.name)
	}
	for n++; n < len(b) && space(b[n]); {
		n++
	}
	if n >= len(b) {
		return 0, errShort
	}
	quote := b[n]
	if quote != '"' && quote != '\'' {
		return 0, badXML("an attribute of %.40q without quotes", s.name)
	}
	n++
	size := bytes.IndexByte(b[n:], quote)
	if size < 0 {
		return 0, errShort
	}
	if len(s.attrs) == maxAttributes {
		return 0, badXML("%.40q has more than %d attributes", s.name, maxAttributes)
	}
	s.attrs = append(s.attrs, attr{name, b[n : n+size]})
	return n + size + 1, nil
}

// attr is the value of the opened element's attribute, nil for none. Entities
// are resolved in place of the last text that had some.
func (s *scanner) attr(name string) ([]byte, error) {
	for _, a := range s.attrs {
		if string(a.name) == name {
			return s.resolve(a.value)
		}
	}
	return nil, nil
}

// resolve returns raw without entities.
func (s *scanner) resolve(raw []byte) ([]byte, error) {
	i := bytes.IndexByte(raw, '&')
	if i < 0 {
		return raw, nil
	}
	out := s.spare[:0]
	for i >= 0 {
		out = append(out, raw[:i]...)
		raw = raw[i+1:]
		end := bytes.IndexByte(raw, ';')
		if end < 0 || end > 12 {
			return nil, badXML("an entity without end")
		}
		r, err := entity(raw[:end])
		if err != nil {
			return nil, err
		}
		out = utf8.AppendRune(out, r)
		raw = raw[end+1:]
		i = bytes.IndexByte(raw, '&')
	}
	s.spare = append(out, raw...)
	return s.spare, nil
}

func entity(name []byte) (rune, error) {
	switch string(name) {
	case "lt":
		return '<', nil
	case "gt":
		return '>', nil
	case "amp":
		return '&', nil
	case "quot":
		return '"', nil
	case "apos":
		return '\'', nil
	}
	if digits, ok := bytes.CutPrefix(name, []byte("#")); ok {
		base := 10
		if hex, ok := bytes.CutPrefix(digits, []byte("x")); ok {
			digits, base = hex, 16
		}
		if n, err := strconv.ParseUint(string(digits), base, 32); err == nil && n <= utf8.MaxRune && utf8.ValidRune(rune(n)) && n > 0 {
			return rune(n), nil
		}
	}
	return 0, badXML("entity &%s; is not known", name)
}

func space(b byte) bool { return b == ' ' || b == '\n' || b == '\t' || b == '\r' }

// nameEnd is where the name that begins at b[n] ends.
func nameEnd(b []byte, n int) int {
	for n < len(b) {
		switch b[n] {
		case ' ', '\n', '\t', '\r', '/', '>', '=', '<', '"', '\'':
			return n
		}
		n++
	}
	return n
}

// local is a name without its prefix.
func local(name []byte) []byte {
	return name[bytes.LastIndexByte(name, ':')+1:]
}
