<?php

declare(strict_types=1);

namespace PMP\Analytics\Queue;

use RuntimeException;

/**
 * A stored payload was sealed with another key, or is damaged.
 */
final class Unreadable extends RuntimeException
{
}
