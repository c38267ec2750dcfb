package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	workingSetPods = 6
	systemBytes    = 3 << 10
	meanThink      = 900 * time.Millisecond
	boundPercent   = 125
)

// order asks for one run: the chats of a workload, sent to a router or by the oracle.
type order struct {
	// Target is host:port of a router, or "oracle".
	Target string `json:"target"`
	// Prompts is the number of system prompts, drawn by Zipf's law; 0: chats have none.
	Prompts       int     `json:"prompts"`
	Conversations int     `json:"conversations"`
	Seed          int64   `json:"seed"`
	WarmSeconds   float64 `json:"warm_seconds"`
	Seconds       float64 `json:"seconds"`
}

type result struct {
	Pods             []tally `json:"pods"`
	Failed           int     `json:"failed"`
	WorkingSetBlocks int     `json:"working_set_blocks"`
	CacheBlocks      int     `json:"cache_blocks"`
}

// words makes text of a length, always the same from the same seed.
func words(random *rand.Rand, length int) string {
	var text strings.Builder
	for text.Len() < length {
		fmt.Fprintf(&text, "%x ", random.Uint32())
	}
	return text.String()[:length]
}

// reply is what every engine answers to the same prompt: 100 to 400 tokens.
func reply(blocks []uint64) string {
	seed := int64(len(blocks))
	if len(blocks) > 0 {
		seed = int64(blocks[len(blocks)-1])
	}
	random := rand.New(rand.NewSource(seed))
	return words(random, 400+random.Intn(1200))
}

// chat is one conversation: its messages so far and how many turns are left.
type chat struct {
	random   *rand.Rand
	messages []message
	turns    int
}

func newChat(random *rand.Rand, prompts int) *chat {
	made := &chat{random: random, turns: 1 + min(11, int(random.ExpFloat64()*5.5))}
	if prompts > 0 {
		which := 0
		if prompts > 1 {
			which = int(rand.NewZipf(random, 1.1, 1, uint64(prompts-1)).Uint64())
		}
		text := words(rand.New(rand.NewSource(int64(which))), systemBytes)
		made.messages = []message{{"system", text}}
	}
	return made
}

func (c *chat) ask() {
	length := 40 + min(3000, int(c.random.ExpFloat64()*400))
	c.messages = append(c.messages, message{"user", words(c.random, length)})
	c.turns--
}

// startChats makes the chats that are under way when a run begins, each some turns old.
func startChats(wanted order) []*chat {
	chats := make([]*chat, wanted.Conversations)
	for i := range chats {
		random := rand.New(rand.NewSource(wanted.Seed<<20 + int64(i)))
		chats[i] = newChat(random, wanted.Prompts)
		for range random.Intn(chats[i].turns) {
			chats[i].ask()
			said := reply(chain(chats[i].messages))
			chats[i].messages = append(chats[i].messages, message{"assistant", said})
		}
	}
	return chats
}

func workingSet(chats []*chat) int {
	distinct := map[uint64]bool{}
	for _, one := range chats {
		for _, block := range chain(one.messages) {
			distinct[block] = true
		}
	}
	return len(distinct)
}

// oracle knows every cache. It takes the pod with the longest cached prefix of those that are not
// above the bound (Envoy's: 1.25 times the mean of active requests), of equals the least busy.
type oracle struct {
	mutex sync.Mutex
	pods  []*pod
}

func (o *oracle) choose(blocks []uint64) *pod {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	active := 1
	for _, one := range o.pods {
		active += one.oracleActive
	}
	whole := (active*boundPercent + 99) / 100
	slots := (whole + len(o.pods) - 1) / len(o.pods)
	var best *pod
	longest := -1
	for _, one := range o.pods {
		if one.oracleActive >= slots {
			continue
		}
		one.mutex.Lock()
		hits := one.cache.prefix(blocks)
		one.mutex.Unlock()
		if hits > longest || (hits == longest && one.oracleActive < best.oracleActive) {
			best, longest = one, hits
		}
	}
	best.oracleActive++
	return best
}

func (o *oracle) done(one *pod) {
	o.mutex.Lock()
	one.oracleActive--
	o.mutex.Unlock()
}

// simulate runs one order on cold caches that hold a sixth of the working set each.
func simulate(wanted order, pods []*pod) result {
	chats := startChats(wanted)
	made := result{WorkingSetBlocks: workingSet(chats)}
	made.CacheBlocks = made.WorkingSetBlocks / workingSetPods
	for _, one := range pods {
		one.reset(made.CacheBlocks)
	}
	sender := &client{sees: &oracle{pods: pods}, target: wanted.Target, http: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: wanted.Conversations},
		Timeout:   30 * time.Second,
	}}
	warm := time.Now().Add(seconds(wanted.WarmSeconds))
	end := warm.Add(seconds(wanted.Seconds))
	var failed, players = make([]int, len(chats)), sync.WaitGroup{}
	for i, one := range chats {
		players.Add(1)
		go func() {
			defer players.Done()
			failed[i] = play(one, wanted, sender, end)
		}()
	}
	time.Sleep(time.Until(warm))
	for _, one := range pods {
		one.clearTally()
	}
	time.Sleep(time.Until(end))
	for _, one := range pods {
		made.Pods = append(made.Pods, one.counted())
	}
	players.Wait()
	for _, count := range failed {
		made.Failed += count
	}
	sender.http.CloseIdleConnections()
	return made
}

// play holds one conversation after another until the end; it returns how many requests failed.
func play(one *chat, wanted order, sender *client, end time.Time) int {
	failed, random := 0, one.random
	think := func() {
		pause := time.Duration(random.ExpFloat64() * float64(meanThink))
		time.Sleep(min(pause, time.Until(end)))
	}
	for think(); time.Now().Before(end); think() {
		if one.turns == 0 {
			one = newChat(random, wanted.Prompts)
		}
		one.ask()
		said, err := sender.send(one.messages)
		if err != nil {
			failed++
			one.turns = 0
			continue
		}
		one.messages = append(one.messages, said)
	}
	return failed
}

type client struct {
	target string
	sees   *oracle
	http   *http.Client
}

func (c *client) send(messages []message) (message, error) {
	host := c.target
	if c.target == "oracle" {
		chosen := c.sees.choose(chain(messages))
		defer c.sees.done(chosen)
		host = net.JoinHostPort(*address, chosen.port)
	}
	body, _ := json.Marshal(struct {
		Messages []message `json:"messages"`
		Model    string    `json:"model"`
	}{messages, "m"})
	reply, err := c.http.Post("http://"+host+"/v1/chat/completions", "application/json", bytes.NewReader(body))
	if err != nil {
		return message{}, err
	}
	defer reply.Body.Close()
	var said struct {
		Choices []struct {
			Message message `json:"message"`
		} `json:"choices"`
	}
	text, err := io.ReadAll(reply.Body)
	if err == nil {
		err = json.Unmarshal(text, &said)
	}
	if err != nil || reply.StatusCode != http.StatusOK || len(said.Choices) == 0 {
		return message{}, fmt.Errorf("status %d: %.200s (%v)", reply.StatusCode, text, err)
	}
	return said.Choices[0].Message, nil
}

func seconds(count float64) time.Duration { return time.Duration(count * float64(time.Second)) }
