package rules

// Nearest is the known word that a typing error stands for; empty when none
// is near. Of two as near it is the first by the alphabet.
func Nearest(word string, known []string) string {
	best, at := "", 3
	for _, k := range known {
		if d := distance(word, k); d < at || d == at && best != "" && k < best {
			best, at = k, d
		}
	}
	return best
}

// distance is Levenshtein's, of the first 60 bytes.
func distance(a, b string) int {
	a, b = a[:min(len(a), 60)], b[:min(len(b), 60)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost = 1 + min(last, row[j], row[j+1])
			}
			last, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
