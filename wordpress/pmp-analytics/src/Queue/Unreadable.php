<?php

declare(strict_types=1);

namespace PMP\Analytics\Queue;

use RuntimeException;

/**
 * A stored message was sealed with another key, is damaged, or has a kind that this version does not support.
 */
final class Unreadable extends RuntimeException
{
}
