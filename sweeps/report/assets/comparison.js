function comparison(page) {}
