// What the second pass knows of one frame: zmtile/gpu/geometry.py has the same fields.
struct Geometry {
    double matrix[6];      // tile pixel -> frame pixel; of a bent map frame pixel -> point of the reference
    double back[6];        // its inverse, of a bent map
    double bend[20];       // as in zmtile/kernels/bend.py
    double origin[2];      // point of the reference at tile pixel (0, 0)
    double middle[2];      // units of the surface, as in zmtile/kernels/warp.py
    double half;
    double surface[18];    // (3, 6): sky added after scaling
    float scale[3];
    int bent;
    int direct;            // nearest pixel, in its own colour alone
    int clamp;
    int taps;
    int steps;             // positions between two pixels in the kernel's table
    int codes[4];          // colours of the mosaic's 2 x 2 block
    int rows, cols;        // of the frame
};
