package swarm

import "time"

// help is rule 5: two requests at a time of each seed that is idle, or of
// which nothing is left that is owned here. They do not make it busy, so that it
// goes on until an owner asks. The source of a draft is idle because it waits
// itself.
func (s *scheduler) help(peers []*peerState, now time.Time, start []Request) []Request {
	s.exchange = exchanged(peers)
	for _, p := range peers {
		may := s.takesOver
		if p.idle {
			may = s.helpful
		}
		for p.class == 2 && (p.idle || p.spare) && p.flying < windowLeast && s.room(p) {
			f, i := s.pick(p, may, s.helpRank)
			if f == nil {
				break
			}
			start = append(start, s.start(f, p, i, now, byHelp))
		}
	}
	return start
}

// helpful says whether piece i may be asked of an idle seed. One that no
// branch has yet is its owner's and one other site's: the line that would carry
// it to all of them brings more when it carries something else, and they get it
// from each other. One that a branch has may be asked by anybody, when it is the
// branches' uplinks that all wait for.
func (s *scheduler) helpful(f *fileState, p *peerState, i int) bool {
	if f.source == p.id || f.near[i] > 0 || !f.carries(s, i) {
		return false
	}
	if f.holders[i] == 0 {
		return f.assists(s, i) && f.ahead(i) >= helpAhead
	}
	return s.outruns(p)
}

// outruns says whether a seed sends faster than branches pass pieces on to
// each other, and so may send one again that a branch has. With n branches it
// is exactly as fast when no help is needed: then it only takes from its line
// what they all lack.
func (s *scheduler) outruns(p *peerState) bool { return p.rate > 1.25*s.exchange }

// exchanged is how fast branches pass pieces on, bytes per second from each;
// 0 unknown.
func exchanged(peers []*peerState) (rate float64) {
	n := 0.0
	for _, p := range peers {
		if p.class == 1 && p.rate > 0 && !p.silent {
			n++
			rate += (p.rate - rate) / n
		}
	}
	return rate
}

// takesOver says whether piece i may be asked of a seed that is busy with what
// slower owners ask: it is this site's to help with, no branch has it, and
// its owner has others to ask before it.
func (s *scheduler) takesOver(f *fileState, p *peerState, i int) bool {
	return f.holders[i] == 0 && s.helpful(f, p, i) && f.ahead(i) >= takeOverAhead
}

// How many pieces of an owner are left to it: they are likely to be on their
// way, or will be when a piece that is asked now is here.
const (
	helpAhead     = windowLeast
	takeOverAhead = 3
)

// ahead is how many pieces the owner of piece i lacks before it, as far as
// matters.
func (f *fileState) ahead(i int) (n int) {
	for i -= len(f.sites); i >= 0 && n < takeOverAhead; i -= len(f.sites) {
		if f.holders[i] == 0 && !f.have.has(i) {
			n++
		}
	}
	return n
}

// assists says whether this site is the one that helps the owner of piece i.
// It turns once per round of owners, so that all others share an owner's pieces.
func (f *fileState) assists(s *scheduler, i int) bool {
	n := uint64(len(f.sites))
	if n < 2 {
		return true
	}
	round, owner := (f.turn+uint64(i))/n, (f.turn+uint64(i))%n
	return f.sites[(owner+1+round%(n-1))%n] == s.site
}

// helpRank begins where an owner, who goes in order, is last: they meet.
func (s *scheduler) helpRank(f *fileState, pf *peerFile, i int) uint64 {
	if f.holders[i] == 0 {
		return uint64(len(f.m.Pieces) - i)
	}
	return s.rank(f, pf, i)
}
