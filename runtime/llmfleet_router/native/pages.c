// Envoy's code is 65 MB, of which a request walks through a good part: on pages of 4 KiB the
// processor keeps looking up where they lie. Its file cannot be mapped otherwise (that takes a file
// system with huge pages), so the code is copied, once, to anonymous memory, as Node.js and PHP can
// do with theirs (--use-largepages, opcache.huge_code_pages). It costs 62 MB that routers of one
// node would share, and backtraces that name no file.
#define _GNU_SOURCE
#include "pages.h"

#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const uintptr_t kHugePage = (uintptr_t)2 << 20;
// tcmalloc, Envoy's allocator, reserves its heap by so much.
static const uintptr_t kHeapRegion = (uintptr_t)1 << 30;

#define SETTINGS "/sys/kernel/mm/transparent_hugepage/"

static uintptr_t down(uintptr_t address, uintptr_t step) { return address & ~(step - 1); }

static uintptr_t up(uintptr_t address, uintptr_t step) { return down(address + step - 1, step); }

static bool says(const char *path, const char *words) {
  char text[64] = {0};
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  bool is_read = read(file, text, sizeof text - 1) > 0;
  close(file);
  return is_read && strstr(text, words);
}

// Elsewhere a copy would cost memory and gain nothing.
static bool are_available(void) {
  return says(SETTINGS "hpage_pmd_size", "2097152\n") &&
         (says(SETTINGS "enabled", "[madvise]") || says(SETTINGS "enabled", "[always]"));
}

// Puts a copy in the place of read-only code. The last step is one system call, so another thread
// sees the old pages, waits, or sees the new ones.
static void move(uintptr_t start, size_t length) {
  size_t room = length + kHugePage;  // so that a huge page can begin at its first byte
  void *found = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED) return;
  uintptr_t first = (uintptr_t)found;
  uintptr_t copy = up(first, kHugePage);
  madvise((void *)copy, length, MADV_HUGEPAGE);
  memcpy((void *)copy, (const void *)start, length);
  if (mprotect((void *)copy, length, PROT_READ | PROT_EXEC) ||
      mremap((void *)copy, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start) ==
          MAP_FAILED) {
    munmap(found, room);
    return;
  }
  if (copy > first) munmap(found, copy - first);
  munmap((void *)(copy + length), first + room - copy - length);
}

// For dl_iterate_phdr, whose first object is the program.
static int move_code(struct dl_phdr_info *program, size_t size, void *unused) {
  (void)size, (void)unused;
  for (size_t i = 0; i < program->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &program->dlpi_phdr[i];
    if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X)) continue;
    uintptr_t begin = program->dlpi_addr + segment->p_vaddr;
    uintptr_t start = up(begin, kHugePage);
    uintptr_t end = down(begin + segment->p_memsz, kHugePage);
    if (end > start) move(start, end - start);
  }
  return 1;
}

// What of the region is not mapped is left out by the kernel.
static void ask_for_heap(void) {
  void *block = malloc(1);
  if (!block) return;
  madvise((void *)down((uintptr_t)block, kHeapRegion), kHeapRegion, MADV_HUGEPAGE);
  free(block);
}

void use_huge_pages(void) {
  if (!are_available()) return;
  dl_iterate_phdr(move_code, NULL);
  ask_for_heap();
}
