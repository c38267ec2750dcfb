// Huge pages for the code and the heap of the process that loaded the module.
#ifndef LLMFLEET_PAGES_H
#define LLMFLEET_PAGES_H

// Moves the program's code to pages of 2 MiB and asks for such pages for its heap. Where the system
// has none, or refuses, everything stays as it was. To be called once, early.
void use_huge_pages(void);

#endif
