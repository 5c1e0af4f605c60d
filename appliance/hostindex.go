package appliance

import (
	"slices"
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
	c.classNumbers, c.systems = nil, numbered{}
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
