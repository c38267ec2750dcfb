package main

import (
	"slices"
	"strings"
	"testing"
)

func TestChainWhenPrefixesAreEqualThenTheirBlocksAre(t *testing.T) {
	system := message{"system", strings.Repeat("a", 200)}
	one := chain([]message{system, {"user", strings.Repeat("b", 200)}})
	other := chain([]message{system, {"user", strings.Repeat("c", 200)}})
	if len(one) < 6 || !slices.Equal(one[:3], other[:3]) || one[len(one)-1] == other[len(other)-1] {
		t.Fatal(one, other)
	}
}

func TestCacheWhenFullThenTheOldestRequestsLastBlocksGoFirst(t *testing.T) {
	cache := newBlockCache(4)
	cache.use([]uint64{1, 2, 3})
	cache.use([]uint64{7, 8})
	if cache.prefix([]uint64{1, 2, 3}) != 2 || cache.prefix([]uint64{7, 8, 9}) != 2 {
		t.Fatal(cache.blocks)
	}
}

func TestOracleWhenTheBestPodIsAboveTheBoundThenTheNextBest(t *testing.T) {
	pods := []*pod{{}, {}, {}, {}}
	for _, one := range pods {
		one.reset(10)
	}
	pods[2].cache.use([]uint64{1, 2, 3})
	pods[3].cache.use([]uint64{1})
	sees := &oracle{pods: pods}
	if sees.choose([]uint64{1, 2, 3}) != pods[2] {
		t.Fatal("not the longest prefix")
	}
	// One active request: the bound is one a pod.
	if sees.choose([]uint64{1, 2, 3}) != pods[3] {
		t.Fatal("not the next best")
	}
	sees.done(pods[2])
	if sees.choose([]uint64{1, 2, 3}) != pods[2] {
		t.Fatal("an answered request still counts")
	}
}

func TestChatsWhenMadeTwiceThenTheyAreEqual(t *testing.T) {
	wanted := order{Prompts: 4, Conversations: 50, Seed: 7}
	one, other := startChats(wanted), startChats(wanted)
	for i := range one {
		if !slices.Equal(one[i].messages, other[i].messages) {
			t.Fatal(i)
		}
	}
	if workingSet(one) < 50*systemBytes/blockBytes/4 {
		t.Fatal("the working set is too small", workingSet(one))
	}
}
