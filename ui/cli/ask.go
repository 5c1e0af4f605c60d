package cli

import (
	"context"
	"maps"
	"net/http"
	"net/url"
)

// get asks for path, and prints the answer when --json is set.
func (t *target) get(ctx context.Context, s Streams, path string, q url.Values, v any) error {
	if err := t.call(ctx, s, path, q, v); err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, v)
	}
	return nil
}

// call asks for path into v.
func (t *target) call(ctx context.Context, s Streams, path string, q url.Values, v any) error {
	c, err := t.client(s)
	if err != nil {
		return err
	}
	return c.Get(ctx, path, q, v)
}

// send posts, puts or deletes.
func (t *target) send(ctx context.Context, s Streams, method, path string, body, answer any) error {
	c, err := t.client(s)
	if err != nil {
		return err
	}
	return c.Do(ctx, method, path, body, answer)
}

func (t *target) post(ctx context.Context, s Streams, path string, body, answer any) error {
	return t.send(ctx, s, http.MethodPost, path, body, answer)
}

// pageRows is how many rows a page is asked for, at most 500.
var pageRows = "500"

// pages follows the cursor to the end and returns every row.
func pages[L, R any](ctx context.Context, t *target, s Streams, path string, q url.Values, of func(*L) (rows *[]R, next string)) ([]R, error) {
	c, err := t.client(s)
	if err != nil {
		return nil, err
	}
	q = maps.Clone(q)
	if q == nil {
		q = url.Values{}
	}
	q.Set("limit", pageRows)
	all := []R{}
	for {
		var l L
		if err := c.Get(ctx, path, q, &l); err != nil {
			return nil, err
		}
		rows, next := of(&l)
		all = append(all, *rows...)
		if next == "" {
			return all, nil
		}
		q.Set("after", next)
	}
}
