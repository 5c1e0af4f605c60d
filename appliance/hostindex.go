package appliance

import (
	"bytes"
	"slices"
	"strings"
)

// An indexed host is what lists of hosts look at of each: a hundred thousand
// hosts lie all over memory, these one behind the other.
type indexed struct {
	host          *host
	slot          int
	system, class int32
}

// numbered are strings by number.
type numbered struct {
	names  []string
	number map[string]int32
}

func (n *numbered) of(s string) int32 {
	i, ok := n.number[s]
	if !ok {
		if n.number == nil {
			n.number = map[string]int32{}
		}
		i = int32(len(n.names))
		n.number[s] = i
		n.names = append(n.names, s)
	}
	return i
}

// facet are the choices with numbers of hosts.
func (n *numbered) facet(hosts []int) []FacetCount {
	m := map[string]int{}
	for i, many := range hosts {
		if many > 0 {
			m[n.names[i]] = many
		}
	}
	return facetList(m)
}

// indexed is the index in the order of the hosts' names, of those that are
// there. It is kept until a host comes, goes, or has another name, system or
// class. The lock is held for writing.
func (c *catalogue) indexed() []indexed {
	if c.index != nil {
		return c.index
	}
	c.classNumbers, c.systems, c.hostWords = nil, numbered{}, hostWords{}
	numbers := map[*class]int32{}
	c.index = make([]indexed, 0, len(c.hosts))
	for _, h := range c.sorted() {
		if h.Key == "" {
			continue // something of it came, it itself not yet
		}
		k := c.classOf(h)
		n, ok := numbers[k]
		if !ok {
			n = int32(len(c.classNumbers))
			numbers[k] = n
			c.classNumbers = append(c.classNumbers, k)
		}
		c.index = append(c.index, indexed{h, h.slot, c.systems.of(h.Facts.OS), n})
	}
	c.index = slices.Clip(c.index)
	return c.index
}

// hostWords are the names of all hosts in the order of the index, in small
// letters, each on a line of its own: a search goes through them in one piece
// instead of through a hundred thousand hosts.
type hostWords struct {
	text []byte
	ends []int32 // where the lines of each host end
}

// A hostSearch looks at the hosts of the index in their order for a text.
type hostSearch struct {
	hostWords
	text []byte
	hit  int // the next place that has it, from where it looked on; -1 for none
	// An id is looked for by its beginning and an address whole, where the text
	// may be part of one.
	inHost bool
}

// searching begins a search for a text; nil finds every host. The lock is held
// for writing.
func (c *catalogue) searching(text string) *hostSearch {
	if text == "" {
		return nil
	}
	if c.hostWords.ends == nil {
		w := hostWords{ends: make([]int32, len(c.index))}
		for i := range c.index {
			f := &c.index[i].host.Facts
			w.text = append(lower(w.text, f.Name), '\n')
			w.text = append(lower(w.text, f.FQDN), '\n')
			w.ends[i] = int32(len(w.text))
		}
		c.hostWords = w
	}
	text = strings.ToLower(text)
	s := &hostSearch{hostWords: c.hostWords, text: []byte(text), inHost: strings.Trim(text, "0123456789abcdef-.:") == ""}
	if s.hit = -1; !strings.Contains(text, "\n") {
		s.hit = bytes.Index(s.hostWords.text, s.text)
	}
	return s
}

// finds says whether host i of the index has the text; i only rises.
func (s *hostSearch) finds(i int, h *host) bool {
	if s == nil {
		return true
	}
	from, end := 0, int(s.ends[i])
	if i > 0 {
		from = int(s.ends[i-1])
	}
	if s.hit >= 0 && s.hit < from {
		if s.hit = bytes.Index(s.hostWords.text[from:], s.text); s.hit >= 0 {
			s.hit += from
		}
	}
	if s.hit >= 0 && s.hit < end {
		return true
	}
	return s.inHost && (strings.HasPrefix(string(h.id), string(s.text)) || slices.Contains(h.Facts.Addresses, string(s.text)))
}
