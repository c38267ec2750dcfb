package main

import (
	"container/list"
	"encoding/json"
	"strings"
	"sync"
	"time"
)

const (
	// A block is 16 tokens, as in vLLM, of four bytes of English text each.
	blockBytes = 16 * 4
	// Time runs twenty times faster than on a GPU that reads 10,000 and writes 50 tokens a second.
	prefillPerBlock = 16 * 5 * time.Microsecond
	decodePerBlock  = 16 * time.Millisecond
)

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// chain hashes every whole block of the rendered messages together with all before it (FNV-1a run on
// from block to block), so equal values mean equal prefixes, as in vLLM's prefix cache.
func chain(messages []message) []uint64 {
	var text strings.Builder
	for _, one := range messages {
		text.WriteString("<|" + one.Role + "|>" + one.Content + "<|end|>")
	}
	whole, hash := text.String(), uint64(14695981039346656037)
	blocks := make([]uint64, 0, len(whole)/blockBytes)
	for i := range len(whole) / blockBytes * blockBytes {
		hash = (hash ^ uint64(whole[i])) * 1099511628211
		if (i+1)%blockBytes == 0 {
			blocks = append(blocks, hash)
		}
	}
	return blocks
}

// blockCache keeps the blocks used last. Of one request the later blocks go first, as in vLLM.
type blockCache struct {
	capacity int
	recency  *list.List
	blocks   map[uint64]*list.Element
}

func newBlockCache(capacity int) *blockCache {
	return &blockCache{capacity, list.New(), make(map[uint64]*list.Element, capacity)}
}

// prefix tells how many of the first blocks are there.
func (c *blockCache) prefix(blocks []uint64) int {
	for i, block := range blocks {
		if c.blocks[block] == nil {
			return i
		}
	}
	return len(blocks)
}

func (c *blockCache) use(blocks []uint64) {
	for i := len(blocks) - 1; i >= 0; i-- {
		if found := c.blocks[blocks[i]]; found != nil {
			c.recency.MoveToFront(found)
		} else {
			c.blocks[blocks[i]] = c.recency.PushFront(blocks[i])
		}
	}
	for c.recency.Len() > c.capacity {
		delete(c.blocks, c.recency.Remove(c.recency.Back()).(uint64))
	}
}

// pod is one engine: its cache, and what it counted since the last reset.
type pod struct {
	port  string
	mutex sync.Mutex
	cache *blockCache
	tally tally
	// Requests the oracle has sent here that are not answered yet.
	oracleActive int
}

type tally struct {
	Requests    int     `json:"requests"`
	Blocks      int     `json:"blocks"`
	HitBlocks   int     `json:"hit_blocks"`
	BusySeconds float64 `json:"busy_seconds"`
}

func (p *pod) reset(capacity int) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.cache, p.tally, p.oracleActive = newBlockCache(capacity), tally{}, 0
}

func (p *pod) clearTally() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.tally = tally{}
}

func (p *pod) counted() tally {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.tally
}

// complete answers a chat as an engine would: it takes the time of the missing blocks and of the
// answer, and caches both. Bodies that are no chat, which routers send to ask for health, cost nothing.
func (p *pod) complete(body []byte) string {
	var request struct {
		Messages []message `json:"messages"`
	}
	if json.Unmarshal(body, &request) != nil || len(request.Messages) == 0 {
		return answer
	}
	blocks := chain(request.Messages)
	p.mutex.Lock()
	if p.cache == nil {
		p.mutex.Unlock()
		return answer
	}
	hits := p.cache.prefix(blocks)
	p.cache.use(blocks)
	p.mutex.Unlock()
	said := message{"assistant", reply(blocks)}
	all := chain(append(request.Messages, said))
	busy := time.Duration(len(blocks)-hits)*prefillPerBlock +
		time.Duration(len(all)-len(blocks))*decodePerBlock
	time.Sleep(busy)
	p.mutex.Lock()
	p.cache.use(all)
	p.tally.Requests++
	p.tally.Blocks += len(blocks)
	p.tally.HitBlocks += hits
	p.tally.BusySeconds += busy.Seconds()
	p.mutex.Unlock()
	text, _ := json.Marshal(map[string]any{
		"id": "c-1", "object": "chat.completion", "created": 1, "model": "m",
		"choices": []any{map[string]any{"index": 0, "message": said, "finish_reason": "stop"}},
	})
	return string(text)
}
